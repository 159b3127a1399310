//! Which addresses are public. Whatever is not plainly a host on the internet counts as private, and so
//! does an IPv6 address that carries a private IPv4 one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

#[cfg(test)]
mod tests;

/// Who can be behind an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A host on the internet.
    Public,
    /// This host, its networks, its cloud, many hosts, or none; and why that is so.
    Private(&'static str),
}

/// Who can be behind `address`.
#[must_use]
pub fn class(address: IpAddr) -> Class {
    Range::of(address).map_or(Class::Public, |range| Class::Private(range.why))
}

/// Addresses that are private for the same reason.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    /// All of them.
    pub(crate) block: IpNet,
    /// The reason.
    pub(crate) why: &'static str,
    /// They reach this host itself or what gives it its identity: never reached because *private*
    /// addresses are allowed, only when such an address is named.
    pub(crate) own: bool,
}

impl Range {
    /// The range that makes an address private.
    pub(crate) fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        }
    }

    /// An address that leads to one of `own`, which are this host's.
    pub(crate) fn of_own(address: IpAddr, own: &[IpAddr]) -> Option<Self> {
        let carried = match address {
            IpAddr::V6(v6) => carried(v6).map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        let is_own = own.contains(&address) || carried.is_some_and(|address| own.contains(&address));
        is_own.then(|| Self { block: address.into(), why: "this host", own: true })
    }
}

fn of_v4(address: Ipv4Addr) -> Option<Range> {
    find(&V4, |block| block.contains(&address), IpNet::V4)
}

fn of_v6(address: Ipv6Addr) -> Option<Range> {
    // The network would carry it to that IPv4 address. A block of such IPv6 addresses does not lie in the
    // IPv4 range, so that an entry must name the address itself.
    if let Some(v4) = carried(address) {
        return of_v4(v4);
    }
    find(&V6, |block| block.contains(&address), IpNet::V6)
}

/// The IPv4 address that a translator or tunnel makes of an IPv6 one.
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let at = |from: usize| Ipv4Addr::new(octets[from], octets[from + 1], octets[from + 2], octets[from + 3]);
    if NAT64.contains(&address) {
        return Some(at(12));
    }
    SIX_TO_FOUR.contains(&address).then(|| at(2))
}

fn find<T: Copy>(rows: &[Row<T>], holds: impl Fn(&T) -> bool, net: fn(T) -> IpNet) -> Option<Range> {
    let &(block, why, own) = rows.iter().find(|(block, ..)| holds(block))?;
    Some(Range { block: net(block), why, own })
}

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// NAT64's well-known prefix (RFC 6052).
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

/// 6to4 (RFC 3056).
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

/// A block, why it is private, and whether it is this host's own. The first that fits counts.
type Row<T> = (T, &'static str, bool);

/// IANA's IPv4 special-purpose addresses that are not globally reachable, and where clouds serve credentials.
const V4: [Row<Ipv4Net>; 20] = [
    (v4([169, 254, 169, 254], 32), METADATA, true),
    (v4([169, 254, 170, 2], 32), METADATA, true),
    (v4([169, 254, 170, 23], 32), METADATA, true),
    (v4([100, 100, 100, 200], 32), METADATA, true),
    (v4([168, 63, 129, 16], 32), METADATA, true),
    (v4([192, 0, 0, 192], 32), METADATA, true),
    (v4([127, 0, 0, 0], 8), "loopback", true),
    (v4([0, 0, 0, 0], 8), "this network", true),
    (v4([10, 0, 0, 0], 8), "RFC 1918", false),
    (v4([172, 16, 0, 0], 12), "RFC 1918", false),
    (v4([192, 168, 0, 0], 16), "RFC 1918", false),
    (v4([169, 254, 0, 0], 16), "link-local", false),
    (v4([100, 64, 0, 0], 10), "shared by a provider's customers", false),
    (v4([192, 0, 0, 0], 24), "for protocols", false),
    (v4([192, 0, 2, 0], 24), "documentation", false),
    (v4([192, 88, 99, 0], 24), "6to4 relay", false),
    (v4([198, 18, 0, 0], 15), "benchmarks", false),
    (v4([198, 51, 100, 0], 24), "documentation", false),
    (v4([203, 0, 113, 0], 24), "documentation", false),
    // Multicast, reserved, broadcast.
    (v4([224, 0, 0, 0], 3), "multicast or reserved", false),
];

/// Everything but global unicast, and what IANA took out of that.
const V6: [Row<Ipv6Net>; 16] = [
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), METADATA, true),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128), METADATA, true),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), METADATA, true),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback", true),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), "unspecified", true),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "unique local", false),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local", false),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast", false),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), "Teredo", false),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation", false),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation", false),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "for protocols", false),
    // What is left outside 2000::/3 but for NAT64, in blocks around them.
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "translated, by a network's own prefix", false),
    (v6([0x4000, 0, 0, 0, 0, 0, 0, 0], 2), "not global unicast", false),
    (v6([0x8000, 0, 0, 0, 0, 0, 0, 0], 1), "not global unicast", false),
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 3), "not global unicast", false),
];

const METADATA: &str = "cloud metadata";
