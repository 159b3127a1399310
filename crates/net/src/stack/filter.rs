//! What a frame of the guest's is. A total, pure function that lets through what an honest guest on this
//! network needs, and nothing else; whatever it cannot place is dropped, with a reason to be counted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Message,
    Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, NdiscRepr,
    TcpPacket, TcpRepr, UdpPacket,
};

use crate::addresses::{
    GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6, PREFIX_V4, PREFIX_V6, is_gateway,
};

/// A frame that is let in.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'f> {
    /// The guest asks for the gateway's hardware address, over IPv4.
    WhoHasGateway,
    /// The same over IPv6, from the guest's address with that scope.
    SolicitGateway {
        /// Where the answer goes: the guest's address or one of its link-local addresses.
        source: Ipv6Addr,
    },
    /// An echo request to the gateway.
    Ping {
        /// The gateway's address that was asked.
        gateway: IpAddr,
        /// The whole ICMP message.
        message: &'f [u8],
    },
    /// A TCP segment.
    Tcp(Segment<'f>),
    /// A UDP datagram, its checksum verified.
    Udp {
        /// The guest's end.
        source: SocketAddr,
        /// The other end.
        destination: SocketAddr,
        /// What is in it.
        payload: &'f [u8],
    },
}

/// A TCP segment of the guest's.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment<'f> {
    /// The guest's end.
    pub source: SocketAddr,
    /// The other end.
    pub destination: SocketAddr,
    /// What it does to its flow.
    pub kind: Kind,
    /// The IP packet, without padding.
    pub packet: &'f [u8],
}

/// What a segment does to its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Opens it: a well-formed SYN, without data, its checksum verified.
    Open {
        /// Where its bytes are counted from. Tells a new connection from one that is asked for again.
        sequence: i32,
    },
    /// Breaks it off; its checksum is verified.
    Reset,
    /// Carries data and says that they are the last; its checksum is verified.
    Last,
    /// Anything else. Its checksum is verified by the TCP implementation.
    Other,
}

/// Why a frame was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// Shorter than its headers say, or nonsense in them.
    Malformed,
    /// Not from, or not to, one of the two stations that there are.
    Station,
    /// An ARP message other than the guest's question for the gateway.
    Arp,
    /// A source address that is not the guest's.
    Spoofed,
    /// Multicast, broadcast, loopback, the guest's own or another address on its own network.
    Destination,
    /// A fragment of a datagram: what is checked is in the first one only.
    Fragment,
    /// IP options or extension headers.
    Header,
    /// Neither ARP, TCP, UDP nor the ICMP that is answered.
    Protocol,
    /// ICMP other than an echo request to the gateway or neighbour discovery of it.
    Icmp,
    /// A wrong checksum.
    Checksum,
    /// A TCP segment whose flags contradict each other, or data in a SYN.
    Flags,
    /// Too many connections wait for their answer.
    Pending,
    /// Too many connections.
    Flows,
    /// Datagrams that come faster than they are dealt with.
    Flood,
}

impl Dropped {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::Station,
        Self::Arp,
        Self::Spoofed,
        Self::Destination,
        Self::Fragment,
        Self::Header,
        Self::Protocol,
        Self::Icmp,
        Self::Checksum,
        Self::Flags,
        Self::Pending,
        Self::Flows,
        Self::Flood,
    ];
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed",
            Self::Station => "neither from the guest nor to the gateway",
            Self::Arp => "ARP other than a question for the gateway",
            Self::Spoofed => "source address is not the guest's",
            Self::Destination => "destination cannot be reached from here",
            Self::Fragment => "fragment",
            Self::Header => "IP options or extension headers",
            Self::Protocol => "protocol is not carried",
            Self::Icmp => "ICMP other than ping to the gateway",
            Self::Checksum => "wrong checksum",
            Self::Flags => "contradictory TCP flags",
            Self::Pending => "too many connections wait for their answer",
            Self::Flows => "too many connections",
            Self::Flood => "datagrams come too fast",
        })
    }
}

/// What a frame of the guest's is, or why it is dropped.
pub fn parse(frame: &[u8]) -> Result<Frame<'_>, Dropped> {
    let frame = EthernetFrame::new_checked(frame).map_err(|_| Dropped::Malformed)?;
    if frame.src_addr() != EthernetAddress(GUEST_MAC) {
        return Err(Dropped::Station);
    }
    let to = frame.dst_addr();
    let to_gateway = to == EthernetAddress(GATEWAY_MAC);
    match frame.ethertype() {
        EthernetProtocol::Arp if to_gateway || to.is_broadcast() => arp(frame.payload()),
        EthernetProtocol::Ipv4 if to_gateway => ipv4(frame.payload()),
        // A solicitation goes to the multicast group of the address that it asks for.
        EthernetProtocol::Ipv6 if to_gateway || to.0 == solicited_mac() => ipv6(frame.payload(), to_gateway),
        EthernetProtocol::Arp | EthernetProtocol::Ipv4 | EthernetProtocol::Ipv6 => Err(Dropped::Station),
        EthernetProtocol::Unknown(_) => Err(Dropped::Protocol),
    }
}

fn arp(packet: &[u8]) -> Result<Frame<'_>, Dropped> {
    let packet = ArpPacket::new_checked(packet).map_err(|_| Dropped::Malformed)?;
    match ArpRepr::parse(&packet).map_err(|_| Dropped::Malformed)? {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: EthernetAddress(GUEST_MAC),
            source_protocol_addr: GUEST_V4,
            target_protocol_addr: GATEWAY_V4,
            ..
        } => Ok(Frame::WhoHasGateway),
        _ => Err(Dropped::Arp),
    }
}

fn ipv4(packet: &[u8]) -> Result<Frame<'_>, Dropped> {
    let header = Ipv4Packet::new_checked(packet).map_err(|_| Dropped::Malformed)?;
    if header.version() != 4 {
        return Err(Dropped::Malformed);
    }
    if usize::from(header.header_len()) != smoltcp::wire::IPV4_HEADER_LEN {
        return Err(Dropped::Header);
    }
    if !header.verify_checksum() {
        return Err(Dropped::Checksum);
    }
    if header.src_addr() != GUEST_V4 {
        return Err(Dropped::Spoofed);
    }
    if !reachable_v4(header.dst_addr()) {
        return Err(Dropped::Destination);
    }
    if header.more_frags() || header.frag_offset() != 0 {
        return Err(Dropped::Fragment);
    }
    let ends = (IpAddr::V4(GUEST_V4), IpAddr::V4(header.dst_addr()));
    let whole = packet.get(..usize::from(header.total_len())).ok_or(Dropped::Malformed)?;
    let payload = whole.get(smoltcp::wire::IPV4_HEADER_LEN..).ok_or(Dropped::Malformed)?;
    match header.next_header() {
        IpProtocol::Tcp => tcp(whole, payload, ends),
        IpProtocol::Udp => udp(payload, ends),
        IpProtocol::Icmp => {
            let message = Icmpv4Packet::new_checked(payload).map_err(|_| Dropped::Malformed)?;
            if !message.verify_checksum() {
                return Err(Dropped::Checksum);
            }
            let asked = message.msg_type() == Icmpv4Message::EchoRequest && message.msg_code() == 0;
            ping(asked, ends.1, payload)
        }
        _ => Err(Dropped::Protocol),
    }
}

fn ipv6(packet: &[u8], to_gateway: bool) -> Result<Frame<'_>, Dropped> {
    let header = Ipv6Packet::new_checked(packet).map_err(|_| Dropped::Malformed)?;
    if header.version() != 6 {
        return Err(Dropped::Malformed);
    }
    let payload = header.payload();
    let (source, destination) = (header.src_addr(), header.dst_addr());
    match header.next_header() {
        IpProtocol::Tcp | IpProtocol::Udp | IpProtocol::Icmpv6 => {}
        IpProtocol::Ipv6Frag => return Err(Dropped::Fragment),
        IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts => return Err(Dropped::Header),
        _ => return Err(Dropped::Protocol),
    }
    if source != GUEST_V6 && !source.is_unicast_link_local() {
        return Err(Dropped::Spoofed);
    }
    if header.next_header() == IpProtocol::Icmpv6 && (!to_gateway || destination == GATEWAY_V6) {
        return icmpv6(payload, source, destination, header.hop_limit());
    }
    if source != GUEST_V6 {
        return Err(Dropped::Spoofed);
    }
    if !to_gateway || !reachable_v6(destination) {
        return Err(Dropped::Destination);
    }
    let ends = (IpAddr::V6(source), IpAddr::V6(destination));
    let whole = packet.get(..header.total_len()).ok_or(Dropped::Malformed)?;
    match header.next_header() {
        IpProtocol::Tcp => tcp(whole, payload, ends),
        IpProtocol::Udp => udp(payload, ends),
        _ => Err(Dropped::Icmp),
    }
}

fn icmpv6(payload: &[u8], source: Ipv6Addr, destination: Ipv6Addr, hops: u8) -> Result<Frame<'_>, Dropped> {
    let message = Icmpv6Packet::new_checked(payload).map_err(|_| Dropped::Malformed)?;
    if !message.verify_checksum(&source, &destination) {
        return Err(Dropped::Checksum);
    }
    match message.msg_type() {
        Icmpv6Message::EchoRequest if source == GUEST_V6 && message.msg_code() == 0 => {
            ping(destination == GATEWAY_V6, IpAddr::V6(destination), payload)
        }
        // 255 hops: it was not forwarded (RFC 4861, 7.1.1).
        Icmpv6Message::NeighborSolicit if hops == 255 && message.msg_code() == 0 => {
            match NdiscRepr::parse(&message).map_err(|_| Dropped::Malformed)? {
                NdiscRepr::NeighborSolicit { target_addr: GATEWAY_V6, .. }
                    if destination == GATEWAY_V6 || destination == solicited_group() =>
                {
                    Ok(Frame::SolicitGateway { source })
                }
                _ => Err(Dropped::Icmp),
            }
        }
        _ => Err(Dropped::Icmp),
    }
}

fn ping(asked: bool, destination: IpAddr, message: &[u8]) -> Result<Frame<'_>, Dropped> {
    if asked && is_gateway(destination) {
        Ok(Frame::Ping { gateway: destination, message })
    } else {
        Err(Dropped::Icmp)
    }
}

fn tcp<'f>(packet: &'f [u8], payload: &'f [u8], ends: (IpAddr, IpAddr)) -> Result<Frame<'f>, Dropped> {
    let segment = TcpPacket::new_checked(payload).map_err(|_| Dropped::Malformed)?;
    if segment.src_port() == 0 || segment.dst_port() == 0 {
        return Err(Dropped::Malformed);
    }
    let data = !segment.payload().is_empty();
    let kind = match (segment.syn(), segment.rst(), segment.fin()) {
        (true, false, false) if !data && !segment.ack() => Kind::Open { sequence: segment.seq_number().0 },
        (true, ..) => return Err(Dropped::Flags),
        (false, true, _) => Kind::Reset,
        (false, false, true) if data => Kind::Last,
        (false, false, _) => Kind::Other,
    };
    if kind != Kind::Other {
        let (source, destination) = (IpAddress::from(ends.0), IpAddress::from(ends.1));
        if !segment.verify_checksum(&source, &destination) {
            return Err(Dropped::Checksum);
        }
        TcpRepr::parse(&segment, &source, &destination, &ChecksumCapabilities::ignored())
            .map_err(|_| Dropped::Malformed)?;
    }
    Ok(Frame::Tcp(Segment {
        source: SocketAddr::new(ends.0, segment.src_port()),
        destination: SocketAddr::new(ends.1, segment.dst_port()),
        kind,
        packet,
    }))
}

fn udp(payload: &[u8], ends: (IpAddr, IpAddr)) -> Result<Frame<'_>, Dropped> {
    let datagram = UdpPacket::new_checked(payload).map_err(|_| Dropped::Malformed)?;
    if datagram.src_port() == 0 || datagram.dst_port() == 0 {
        return Err(Dropped::Malformed);
    }
    // Without a checksum: allowed by IPv4 (RFC 768), not by IPv6 (RFC 8200, 8.1).
    let none = datagram.checksum() == 0;
    if (none && ends.0.is_ipv6()) || (!none && !datagram.verify_checksum(&ends.0.into(), &ends.1.into())) {
        return Err(Dropped::Checksum);
    }
    let data = payload.get(smoltcp::wire::UDP_HEADER_LEN..usize::from(datagram.len()));
    Ok(Frame::Udp {
        source: SocketAddr::new(ends.0, datagram.src_port()),
        destination: SocketAddr::new(ends.1, datagram.dst_port()),
        payload: data.ok_or(Dropped::Malformed)?,
    })
}

/// What makes no sense as the other end of a flow, whatever the policy says.
fn reachable_v4(address: Ipv4Addr) -> bool {
    let mask = u32::MAX << (32 - PREFIX_V4);
    let on_link = address.to_bits() & mask == GATEWAY_V4.to_bits() & mask;
    let odd =
        address.is_multicast() || address.is_broadcast() || address.is_loopback() || address.octets()[0] == 0;
    !odd && (!on_link || address == GATEWAY_V4)
}

fn reachable_v6(address: Ipv6Addr) -> bool {
    let mask = u128::MAX << (128 - PREFIX_V6);
    let on_link = address.to_bits() & mask == GATEWAY_V6.to_bits() & mask;
    let odd = address.is_multicast()
        || address.is_loopback()
        || address.is_unspecified()
        || address.is_unicast_link_local();
    !odd && (!on_link || address == GATEWAY_V6)
}

/// The group in which the gateway would be asked for (RFC 4291, 2.7.1).
fn solicited_group() -> Ipv6Addr {
    let [.., a, b, c] = GATEWAY_V6.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The hardware address of that group (RFC 2464, 7).
fn solicited_mac() -> [u8; 6] {
    let [.., a, b, c] = GATEWAY_V6.octets();
    [0x33, 0x33, 0xff, a, b, c]
}

#[cfg(test)]
mod tests;
