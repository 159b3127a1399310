//! Whether an address is one of the host's own. Interfaces come and go, so the kernel is asked each time.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use policy::Policy;
use rustix::io::Errno;

/// Any port will do: nothing is sent.
const PORT: u16 = 9;

/// The policy, and it knows it if the address is one of the host's own.
pub(crate) fn told_of(policy: &Policy, address: IpAddr) -> Policy {
    if is_own(address) { policy.with_own_addresses([address]) } else { policy.clone() }
}

/// A datagram to one's own address has that for its source, too. Only the route is looked up.
fn is_own(address: IpAddr) -> bool {
    let any: SocketAddr = match address {
        IpAddr::V4(_) => ([0; 4], 0).into(),
        IpAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = match UdpSocket::bind(any) {
        Ok(socket) => socket,
        // Without that family there is no way to the address. Whatever else fails, we could not tell.
        Err(error) => {
            return !matches!(Errno::from_io_error(&error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL));
        }
    };
    // What has no route cannot be reached either.
    let source = socket.connect((address, PORT)).and_then(|()| socket.local_addr());
    source.is_ok_and(|source| source.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_has_its_address_and_no_other() {
        assert!(is_own([127, 0, 0, 1].into()));
        assert!(!is_own([203, 0, 113, 1].into()));
    }
}
