//! Whether an address is one of the host's own. Interfaces come and go, so the kernel is asked each time, and
//! what it does not answer counts as own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use policy::Policy;
use rustix::io::Errno;

/// Any port will do: nothing is sent.
const PORT: u16 = 9;

/// The policy, and it knows it if the address is one of the host's own, or leads to one.
pub(crate) fn told_of(policy: &Policy, address: IpAddr) -> Policy {
    // What the policy decides about, and what is dialled.
    let address = address.to_canonical();
    let carried = match address {
        IpAddr::V4(_) => Vec::new(),
        IpAddr::V6(address) => embedded(address).into(),
    };
    let own: Vec<_> = carried.into_iter().chain([address]).filter(|&address| is_own(address)).collect();
    if own.is_empty() { policy.clone() } else { policy.with_own_addresses(own) }
}

/// Where an IPv6 address can have an IPv4 one in it: 6to4 (RFC 3056) and NAT64 (RFC 6052). The policy knows
/// whether it does.
fn embedded(address: Ipv6Addr) -> [IpAddr; 2] {
    let octets = address.octets();
    [2, 12].map(|at| Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]).into())
}

/// Whether a socket can have the address, or datagrams to it have it for their source. The one alone misses
/// local routes that are no address, the other all but the first address of a network.
fn is_own(address: IpAddr) -> bool {
    match UdpSocket::bind((address, 0)) {
        // With `ip_nonlocal_bind` any socket can; but one with a foreign IPv4 address finds no way. IPv6
        // addresses are all own then.
        Ok(socket) => match socket.connect((address, PORT)) {
            Err(error) if address.is_ipv4() && no_way(&error) => is_source(address),
            _ => true,
        },
        Err(refused) => match Errno::from_io_error(&refused) {
            // Nobody has it, the host does not have its family, or it takes an interface, too.
            Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT | Errno::INVAL) => is_source(address),
            _ => true,
        },
    }
}

/// Whether a datagram to the address has it for its source. Only the route is looked up.
fn is_source(address: IpAddr) -> bool {
    let any: SocketAddr = match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let source = UdpSocket::bind(any).and_then(|socket| {
        socket.connect((address, PORT))?;
        socket.local_addr()
    });
    match source {
        Ok(source) => source.ip() == address,
        Err(error) => !no_way(&error),
    }
}

/// Whether an error says that there is no way to an address, so that nobody gets there.
fn no_way(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::AFNOSUPPORT
                | Errno::ADDRNOTAVAIL
                | Errno::NETUNREACH
                | Errno::HOSTUNREACH
                // What routes say that forbid, and broadcast addresses.
                | Errno::ACCESS
                | Errno::INVAL
        )
    )
}

#[cfg(test)]
mod tests;
