//! Datagrams in both directions.

use std::net::SocketAddr;

use smoltcp::wire::{EthernetFrame, Ipv4Packet, Ipv6Packet, UdpPacket};

use super::frames::{self, guest as end};
use super::{Dropped, bed};
use crate::addresses::{GUEST_V4, GUEST_V6};
use crate::stack::{DEFAULT_MTU, MIN_MTU};

const V4: &str = "192.0.2.7:53";
const V6: &str = "[2001:db8::7]:53";

#[test]
fn datagrams_pass_both_ways() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    for to in [V4, V6] {
        let to: SocketAddr = to.parse().unwrap();
        for payload in [&b""[..], b"query", &vec![7; 60_000]] {
            guest.frame(&frames::udp(end(4000, to), to, payload));
            let incoming = host.incoming.as_mut().unwrap();
            let datagram = host.runtime.block_on(incoming.udp.recv()).unwrap();
            assert_eq!((datagram.source, datagram.destination), (end(4000, to), to));
            assert_eq!(datagram.payload, payload);
            assert!(host.stack.replies().send(to, datagram.source, datagram.payload));
            let frame = guest.next_frame();
            let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
            let (guest, udp) = if to.is_ipv4() {
                let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
                assert!(packet.verify_checksum() && packet.dst_addr() == GUEST_V4);
                (packet.dst_addr().into(), packet.payload())
            } else {
                let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
                (packet.dst_addr().into(), packet.payload())
            };
            let answer = UdpPacket::new_checked(udp).unwrap();
            assert!(answer.verify_checksum(&to.ip().into(), &guest));
            assert_eq!((answer.src_port(), answer.dst_port()), (53, 4000));
            assert_eq!(answer.payload(), payload);
        }
    }
}

#[test]
fn replies_go_only_to_the_guest_and_only_in_one_packet() {
    let (_guest, host) = bed(MIN_MTU);
    let replies = host.stack.replies();
    let (v4, v6): (SocketAddr, SocketAddr) = (V4.parse().unwrap(), V6.parse().unwrap());
    let small = || vec![7; 1].into();
    assert!(!replies.send(v4, v4, small()));
    assert!(!replies.send(v4, SocketAddr::new(GUEST_V6.into(), 1), small()));
    assert!(!replies.send(SocketAddr::new(GUEST_V4.into(), 1), SocketAddr::new(GUEST_V4.into(), 1), small()));
    for (from, header) in [(v4, 28), (v6, 48)] {
        let longest = usize::from(MIN_MTU) - header;
        assert!(replies.send(from, end(1, from), vec![7; longest].into()));
        assert!(!replies.send(from, end(1, from), vec![7; longest + 1].into()));
    }
}

#[test]
fn a_flood_of_datagrams_that_nobody_takes_is_bounded() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let to: SocketAddr = V4.parse().unwrap();
    for payload in [vec![7; 60_000], vec![]] {
        let before = host.dropped(Dropped::Flood);
        let frame = frames::udp(end(4000, to), to, &payload);
        for _ in 0..2000 {
            guest.frame(&frame);
        }
        host.wait_dropped(Dropped::Flood, before + 900);
        let incoming = host.incoming.as_mut().unwrap();
        let mut held = Vec::new();
        while let Ok(datagram) = incoming.udp.try_recv() {
            held.push(datagram.payload);
        }
        assert!(held.iter().map(bytes::Bytes::len).sum::<usize>() <= 4 << 20);
        // What is held counts, wherever it is.
        if !payload.is_empty() {
            guest.frame(&frame);
            host.wait_dropped(Dropped::Flood, before + 1930);
        }
    }
    guest.frame(&frames::udp(end(4000, to), to, b"after"));
    let incoming = host.incoming.as_mut().unwrap();
    while host.runtime.block_on(incoming.udp.recv()).unwrap().payload != b"after"[..] {}
}
