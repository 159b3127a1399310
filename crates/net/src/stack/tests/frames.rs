//! Frames as a guest may send them, honest ones to begin with.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Packet,
    Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpRepr, Ipv4Address, NdiscRepr, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

use crate::addresses::{GATEWAY_MAC, GATEWAY_V4, GUEST_MAC, GUEST_V4, GUEST_V6};

pub(in crate::stack) const ETHERNET: usize = 14;
pub(in crate::stack) const SOLICITED: [u8; 6] = [0x33, 0x33, 0xff, 0, 0, 1];

fn checks() -> ChecksumCapabilities {
    ChecksumCapabilities::default()
}

pub(in crate::stack) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(in crate::stack) fn guest(port: u16, like: SocketAddr) -> SocketAddr {
    SocketAddr::new(crate::addresses::guest_like(like.ip()), port)
}

pub(in crate::stack) fn ethernet(
    to: [u8; 6],
    from: [u8; 6],
    protocol: EthernetProtocol,
    payload: &[u8],
) -> Vec<u8> {
    let mut buffer = vec![0; ETHERNET + payload.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut buffer);
    frame.set_dst_addr(EthernetAddress(to));
    frame.set_src_addr(EthernetAddress(from));
    frame.set_ethertype(protocol);
    frame.payload_mut().copy_from_slice(payload);
    buffer
}

/// An IP packet to the gateway's hardware address.
pub(in crate::stack) fn ip(
    from: IpAddr,
    to: IpAddr,
    protocol: IpProtocol,
    hops: u8,
    payload: &[u8],
) -> Vec<u8> {
    let repr = IpRepr::new(from.into(), to.into(), protocol, payload.len(), hops);
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut packet, &checks());
    packet[repr.header_len()..].copy_from_slice(payload);
    let kind = if from.is_ipv4() { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 };
    ethernet(GATEWAY_MAC, GUEST_MAC, kind, &packet)
}

/// A TCP segment; its flags are those of `control`, and ACK if there is an acknowledgement.
pub(in crate::stack) struct Segment<'p> {
    pub(in crate::stack) from: SocketAddr,
    pub(in crate::stack) to: SocketAddr,
    pub(in crate::stack) control: TcpControl,
    pub(in crate::stack) sequence: i32,
    pub(in crate::stack) acknowledged: Option<i32>,
    pub(in crate::stack) window: u16,
    pub(in crate::stack) payload: &'p [u8],
}

impl Segment<'_> {
    pub(in crate::stack) fn syn(from: SocketAddr, to: SocketAddr) -> Self {
        Self {
            from,
            to,
            control: TcpControl::Syn,
            sequence: 1000,
            acknowledged: None,
            window: 64_000,
            payload: &[],
        }
    }

    pub(in crate::stack) fn frame(&self) -> Vec<u8> {
        let syn = self.control == TcpControl::Syn;
        let repr = TcpRepr {
            src_port: self.from.port(),
            dst_port: self.to.port(),
            control: self.control,
            seq_number: TcpSeqNumber(self.sequence),
            ack_number: self.acknowledged.map(TcpSeqNumber),
            window_len: self.window,
            window_scale: syn.then_some(7),
            max_seg_size: syn.then_some(1460),
            sack_permitted: syn,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: self.payload,
        };
        let mut buffer = vec![0; repr.buffer_len()];
        let (from, to) = (IpAddress::from(self.from.ip()), IpAddress::from(self.to.ip()));
        repr.emit(&mut TcpPacket::new_unchecked(&mut buffer), &from, &to, &checks());
        ip(self.from.ip(), self.to.ip(), IpProtocol::Tcp, 64, &buffer)
    }
}

pub(in crate::stack) fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let repr = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let mut buffer = vec![0; repr.header_len() + payload.len()];
    let (source, destination) = (IpAddress::from(from.ip()), IpAddress::from(to.ip()));
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut buffer),
        &source,
        &destination,
        payload.len(),
        |data| data.copy_from_slice(payload),
        &checks(),
    );
    ip(from.ip(), to.ip(), IpProtocol::Udp, 64, &buffer)
}

pub(in crate::stack) fn arp(
    operation: ArpOperation,
    from: ([u8; 6], Ipv4Address),
    asked: Ipv4Address,
) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(from.0),
        source_protocol_addr: from.1,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: asked,
    };
    let mut buffer = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut buffer));
    ethernet([0xff; 6], GUEST_MAC, EthernetProtocol::Arp, &buffer)
}

pub(in crate::stack) fn who_has_gateway() -> Vec<u8> {
    arp(ArpOperation::Request, (GUEST_MAC, GUEST_V4), GATEWAY_V4)
}

pub(in crate::stack) fn ping(to: IpAddr, data: &[u8]) -> Vec<u8> {
    match to {
        IpAddr::V4(_) => icmpv4(to, &Icmpv4Repr::EchoRequest { ident: 7, seq_no: 1, data }),
        IpAddr::V6(to) => icmpv6(GUEST_V6, to, 64, &Icmpv6Repr::EchoRequest { ident: 7, seq_no: 1, data }),
    }
}

pub(in crate::stack) fn icmpv4(to: IpAddr, repr: &Icmpv4Repr<'_>) -> Vec<u8> {
    let mut buffer = vec![0; repr.buffer_len()];
    repr.emit(&mut Icmpv4Packet::new_unchecked(&mut buffer), &checks());
    ip(GUEST_V4.into(), to, IpProtocol::Icmp, 64, &buffer)
}

pub(in crate::stack) fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, hops: u8, repr: &Icmpv6Repr<'_>) -> Vec<u8> {
    let mut buffer = vec![0; repr.buffer_len()];
    repr.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(&mut buffer), &checks());
    ip(from.into(), to.into(), IpProtocol::Icmpv6, hops, &buffer)
}

/// A neighbour solicitation, to the group of what it asks for.
pub(in crate::stack) fn solicit(from: Ipv6Addr, asked: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = asked.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let repr =
        NdiscRepr::NeighborSolicit { target_addr: asked, lladdr: Some(EthernetAddress(GUEST_MAC).into()) };
    let mut frame = icmpv6(from, group, 255, &Icmpv6Repr::Ndisc(repr));
    frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, a, b, c]);
    frame
}
