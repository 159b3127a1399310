//! Who is who on the guest's network: one guest, one gateway, everything else is behind the gateway.
//! The addresses are the same in every sandbox, since no two of them ever meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The guest's hardware address: `02` (locally administered), then `match` and `h`.
pub const GUEST_MAC: [u8; 6] = [0x02, 0x6d, 0x61, 0x74, 0x63, 0x68];
/// The gateway's hardware address.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x6d, 0x61, 0x74, 0x63, 0x01];

/// The guest's IPv4 address: shared address space (RFC 6598), which no network at home or at work has.
pub const GUEST_V4: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 2);
/// The gateway's IPv4 address.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 1);
/// Bits of the IPv4 network's prefix.
pub const PREFIX_V4: u8 = 30;

/// The guest's IPv6 address: a unique local one (RFC 4193), `match` in hexadecimal digits.
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd6d, 0x6174, 0x6368, 0, 0, 0, 0, 2);
/// The gateway's IPv6 address.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd6d, 0x6174, 0x6368, 0, 0, 0, 0, 1);
/// Bits of the IPv6 network's prefix.
pub const PREFIX_V6: u8 = 64;

/// The guest's address of the same family.
pub fn guest_like(other: IpAddr) -> IpAddr {
    if other.is_ipv4() { IpAddr::V4(GUEST_V4) } else { IpAddr::V6(GUEST_V6) }
}

/// Whether it is the gateway itself.
pub fn is_gateway(address: IpAddr) -> bool {
    address == IpAddr::V4(GATEWAY_V4) || address == IpAddr::V6(GATEWAY_V6)
}
