//! Frames that the gateway makes itself: its hardware address, its echo, datagrams to the guest.
//! Nothing here depends on what a flow has done; the guest's hardware address is never learnt.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv6Packet,
    Icmpv6Repr, IpAddress, IpProtocol, IpRepr, Ipv6Repr, NdiscNeighborFlags, NdiscRepr, UdpPacket, UdpRepr,
};

use super::outbox::Outbox;
use crate::addresses::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, guest_like};

/// Hops of packets that the gateway sends.
const HOPS: u8 = 64;

/// Puts the Ethernet header of a frame to the guest in front of it.
pub(super) fn ethernet(frame: &mut [u8], protocol: EthernetProtocol) {
    let mut frame = EthernetFrame::new_unchecked(frame);
    frame.set_dst_addr(EthernetAddress(GUEST_MAC));
    frame.set_src_addr(EthernetAddress(GATEWAY_MAC));
    frame.set_ethertype(protocol);
}

/// Says that the gateway's IPv4 address is at its hardware address.
pub(super) fn arp(out: &mut Outbox) {
    let answer = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(GATEWAY_MAC),
        source_protocol_addr: GATEWAY_V4,
        target_hardware_addr: EthernetAddress(GUEST_MAC),
        target_protocol_addr: GUEST_V4,
    };
    out.frame(smoltcp::wire::ETHERNET_HEADER_LEN + answer.buffer_len(), |frame| {
        ethernet(frame, EthernetProtocol::Arp);
        answer.emit(&mut ArpPacket::new_unchecked(&mut frame[smoltcp::wire::ETHERNET_HEADER_LEN..]));
    });
}

/// The same for its IPv6 address, said to the guest's address that asked.
pub(super) fn advertisement(to: Ipv6Addr, out: &mut Outbox) {
    let answer = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE,
        target_addr: GATEWAY_V6,
        lladdr: Some(EthernetAddress(GATEWAY_MAC).into()),
    });
    let ip = IpRepr::Ipv6(Ipv6Repr {
        src_addr: GATEWAY_V6,
        dst_addr: to,
        next_header: IpProtocol::Icmpv6,
        payload_len: answer.buffer_len(),
        hop_limit: 255,
    });
    out.packet(ip.buffer_len(), |packet| {
        ip.emit(&mut *packet, &ChecksumCapabilities::default());
        let message = &mut packet[ip.header_len()..];
        let mut message = Icmpv6Packet::new_unchecked(message);
        answer.emit(&GATEWAY_V6, &to, &mut message, &ChecksumCapabilities::default());
    });
}

/// Answers an echo request, whose message is valid, from the gateway's address.
pub(super) fn pong(gateway: IpAddr, request: &[u8], out: &mut Outbox) {
    let guest = guest_like(gateway);
    let protocol = if gateway.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
    let ip = IpRepr::new(gateway.into(), guest.into(), protocol, request.len(), HOPS);
    out.packet(ip.buffer_len(), |packet| {
        ip.emit(&mut *packet, &ChecksumCapabilities::default());
        let message = &mut packet[ip.header_len()..];
        message.copy_from_slice(request);
        match (gateway, guest) {
            (IpAddr::V4(_), _) => {
                let mut message = smoltcp::wire::Icmpv4Packet::new_unchecked(message);
                message.set_msg_type(smoltcp::wire::Icmpv4Message::EchoReply);
                message.fill_checksum();
            }
            (IpAddr::V6(gateway), IpAddr::V6(guest)) => {
                let mut message = Icmpv6Packet::new_unchecked(message);
                message.set_msg_type(smoltcp::wire::Icmpv6Message::EchoReply);
                message.fill_checksum(&gateway, &guest);
            }
            (IpAddr::V6(_), IpAddr::V4(_)) => unreachable!("the guest's address is of the same family"),
        }
    });
}

/// How long the IP packet with a datagram of that payload is.
pub(super) fn datagram_len(from: SocketAddr, payload: usize) -> usize {
    let header = if from.is_ipv4() { smoltcp::wire::IPV4_HEADER_LEN } else { smoltcp::wire::IPV6_HEADER_LEN };
    header + smoltcp::wire::UDP_HEADER_LEN + payload
}

/// Sends a datagram to the guest.
pub(super) fn datagram(from: SocketAddr, port: u16, payload: &[u8], out: &mut Outbox) {
    let (source, guest) = (IpAddress::from(from.ip()), IpAddress::from(guest_like(from.ip())));
    let udp = UdpRepr { src_port: from.port(), dst_port: port };
    let ip = IpRepr::new(source, guest, IpProtocol::Udp, udp.header_len() + payload.len(), HOPS);
    out.packet(ip.buffer_len(), |packet| {
        ip.emit(&mut *packet, &ChecksumCapabilities::default());
        let mut datagram = UdpPacket::new_unchecked(&mut packet[ip.header_len()..]);
        udp.emit(
            &mut datagram,
            &source,
            &guest,
            payload.len(),
            |data| data.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    });
}
