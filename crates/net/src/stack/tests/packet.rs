//! The stack on a TAP device, whose guest leaves checksums and segmentation to its network card.

use std::net::SocketAddr;

use smoltcp::wire::{IpAddress, IpProtocol, TcpControl, checksum};
use sys::packet::PacketSocket;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::cable::Cable;
use super::frames::{self, Segment, guest as end};
use super::hostile::{Chance, hello, open, works};
use super::tap::{self, MTU, PLAIN, Tap};
use super::tcp::echoes;
use super::{Dropped, Guest, HANG, Host, bed_on};
use crate::addresses::{GATEWAY_V4, GATEWAY_V6};
use crate::stack::{Link, LinkError};

const V4: &str = "192.0.2.7:80";
const V6: &str = "[2001:db8::7]:80";

/// Runs the test of this name in a network namespace of its own.
fn alone(name: &str, test: impl FnOnce(Guest, Host)) {
    tap::alone(&format!("stack::tests::packet::{name}"), || {
        let (guest, host) = bed(MTU);
        test(guest, host);
    });
}

fn bed(mtu: u16) -> (Guest, Host) {
    let (tap, socket) = Tap::new();
    bed_on(Link::Packet(PacketSocket::new(socket).unwrap()), Cable::tap(tap), mtu)
}

/// A frame whose checksum is left to be completed, with what says so; `gso` as in `struct virtio_net_hdr`.
fn partial(mut frame: Vec<u8>, to: SocketAddr, protocol: IpProtocol, gso: u8) -> ([u8; 10], Vec<u8>) {
    let (start, kind) = if to.is_ipv4() { (34, 1) } else { (54, 4) };
    let offset = if protocol == IpProtocol::Tcp { 16 } else { 6 };
    let length = u32::try_from(frame.len() - start).unwrap();
    let (from, to) = (IpAddress::from(end(1, to).ip()), IpAddress::from(to.ip()));
    let sum = checksum::pseudo_header(&from, &to, protocol, length);
    frame[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
    let (start, offset) = (u8::try_from(start).unwrap(), u8::try_from(offset).unwrap());
    let header = match gso {
        0 => [1, 0, 0, 0, 0, 0, start, 0, offset, 0],
        _ => [1, gso * kind, start + 20, 0, 0xb4, 5, start, 0, offset, 0],
    };
    (header, frame)
}

#[test]
fn the_longest_frames_pass_both_ways_and_ours_do_not_come_back() {
    alone("the_longest_frames_pass_both_ways_and_ours_do_not_come_back", |mut guest, host| {
        for (gateway, header) in [(GATEWAY_V4.into(), 28), (GATEWAY_V6.into(), 48)] {
            for round in 0..100 {
                let data = vec![round; usize::from(MTU) - header];
                guest.frame(&frames::ping(gateway, &data));
                assert!(guest.next_frame().ends_with(&data));
            }
        }
        assert!(host.stack.dropped().all(|(_, count)| count == 0));
    });
}

#[test]
fn frames_longer_than_the_mtu_are_dropped() {
    tap::alone("stack::tests::packet::frames_longer_than_the_mtu_are_dropped", || {
        // The device's own, and one that is only the guest's and ours.
        for mtu in [MTU, 1500] {
            let (mut guest, mut host) = bed(mtu);
            host.serve(hello);
            let data = vec![7; usize::from(mtu) - 27];
            for (gateway, data) in [(GATEWAY_V4.into(), &data[..]), (GATEWAY_V6.into(), &data[20..])] {
                guest.frame(&frames::ping(gateway, data));
                guest.frame(&frames::ping(gateway, &data[1..]));
                assert!(guest.next_frame().ends_with(&data[1..]));
            }
            assert_eq!(host.dropped(Dropped::Malformed), 2);
            works(&mut guest);
        }
    });
}

/// A long ping that is said to be several TCP segments.
#[test]
fn an_answer_longer_than_the_mtu_does_not_end_the_link() {
    alone("an_answer_longer_than_the_mtu_does_not_end_the_link", |mut guest, mut host| {
        host.serve(hello);
        let mut ping = frames::ping(GATEWAY_V4.into(), &vec![0; 65_535 - 28]);
        // Its checksum is completed where TCP has it, and right if there was none.
        ping[36..38].fill(0);
        guest.tap().send([1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0], &ping).unwrap();
        works(&mut guest);
        assert!(host.stack.dropped().all(|(_, count)| count == 0));
    });
}

#[test]
fn megabytes_come_back_as_they_were_sent() {
    tap::alone("stack::tests::packet::megabytes_come_back_as_they_were_sent", || {
        for to in [V4, V6] {
            let (mut guest, mut host) = bed(MTU);
            echoes(&mut guest, &mut host, to, 16 << 20);
        }
    });
}

#[test]
fn checksums_are_completed() {
    alone("checksums_are_completed", |mut guest, mut host| {
        for to in [V4, V6] {
            let to: SocketAddr = to.parse().unwrap();
            let datagram = frames::udp(end(4000, to), to, b"payload");
            let (header, frame) = partial(datagram, to, IpProtocol::Udp, 0);
            guest.tap().send(header, &frame).unwrap();
            let incoming = host.incoming.as_mut().unwrap();
            let datagram = host.runtime.block_on(incoming.udp.recv()).unwrap();
            assert_eq!(datagram.payload, b"payload"[..]);

            let (header, frame) = partial(Segment::syn(end(4000, to), to).frame(), to, IpProtocol::Tcp, 0);
            // Without being told, it is wrong.
            guest.tap().send(PLAIN, &frame).unwrap();
            guest.tap().send(header, &frame).unwrap();
            assert_eq!(host.syn(&mut guest).source(), end(4000, to));
        }
        assert_eq!(host.dropped(Dropped::Checksum), 2);
    });
}

#[test]
fn several_segments_in_one_are_taken_as_they_are() {
    alone("several_segments_in_one_are_taken_as_they_are", |mut guest, mut host| {
        for (to, header, port) in [(V4, 40, 4000), (V6, 60, 4001)] {
            let to: SocketAddr = to.parse().unwrap();
            let (sender, received) = std::sync::mpsc::channel();
            let incoming = host.incoming.as_mut().unwrap();
            // As long as an IP packet can be.
            let payload: Vec<u8> = (0..65_535 - header).map(|at| (at / 251 + at) as u8).collect();
            let mut data = vec![0; payload.len()];
            let accept = async {
                let syn = timeout(HANG, incoming.tcp.recv()).await.unwrap();
                let mut stream = syn.unwrap().accept();
                timeout(HANG, stream.read_exact(&mut data)).await.unwrap().unwrap();
                sender.send(data).unwrap();
            };
            std::thread::scope(|scope| {
                scope.spawn(|| host.runtime.block_on(accept));
                let from = end(port, to);
                let (ours, theirs) = open(&mut guest, from, to);
                let segment = Segment {
                    from,
                    to,
                    control: TcpControl::Psh,
                    sequence: ours,
                    acknowledged: Some(theirs),
                    window: 64_000,
                    payload: &payload,
                };
                let (header, frame) = partial(segment.frame(), to, IpProtocol::Tcp, 1);
                assert_eq!(frame.len(), sys::packet::LONGEST);
                guest.tap().send(header, &frame).unwrap();
            });
            assert!(received.recv().unwrap() == payload);
        }
    });
}

#[test]
fn wild_offloads_break_nothing_else() {
    alone("wild_offloads_break_nothing_else", |mut guest, mut host| {
        host.serve(hello);
        let mut chance = Chance(3);
        let to: SocketAddr = V4.parse().unwrap();
        let honest = [
            frames::udp(end(4000, to), to, &[7; 3000]),
            Segment::syn(end(4000, to), to).frame(),
            frames::ping(GATEWAY_V4.into(), &[7; 3000]),
            frames::who_has_gateway(),
        ];
        let mut taken = 0;
        for round in 0..3000 {
            let frame = &honest[round % honest.len()];
            let mut header = PLAIN;
            header[0] = 1;
            // Not UDP's fragmentation: the guest would stop its own link.
            header[1] = [0, 0, 0, 0, 0, 1, 4, 5][chance.below(8) as usize];
            for byte in &mut header[2..] {
                *byte = chance.next() as u8;
            }
            // Most of what makes no sense at all the kernel refuses.
            for high in [3, 5, 7, 9] {
                header[high] &= [0, 0, 0, 0xff][chance.below(4) as usize];
            }
            taken += usize::from(guest.tap().send(header, frame).is_ok());
            if round % 16 == 0 {
                guest.drain();
            }
        }
        assert!(taken > 200, "{taken}");
        works(&mut guest);
    });
}

#[test]
fn a_flood_loses_frames_and_not_the_link() {
    alone("a_flood_loses_frames_and_not_the_link", |mut guest, mut host| {
        host.serve(hello);
        let ping = frames::ping(GATEWAY_V4.into(), &vec![7; 60_000]);
        for _ in 0..2000 {
            guest.tap().send(PLAIN, &ping).unwrap();
        }
        works(&mut guest);
    });
}

#[test]
fn what_the_guest_does_not_read_waits() {
    alone("what_the_guest_does_not_read_waits", |mut guest, mut host| {
        let replies = host.stack.replies();
        let from: SocketAddr = "192.0.2.7:9".parse().unwrap();
        let mut sent = 0;
        let mut refused = 0;
        while refused < 3 {
            if replies.send(from, end(9, from), vec![7; 60_000].into()) {
                (sent, refused) = (sent + 1, 0);
            } else {
                refused += 1;
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            assert!(sent < 10_000, "without a limit");
        }
        for _ in 0..sent {
            assert!(guest.next_frame().ends_with(&vec![7; 60_000]));
        }
        host.serve(hello);
        works(&mut guest);
    });
}

#[test]
fn the_end_of_the_device_is_the_link_s() {
    alone("the_end_of_the_device_is_the_link_s", |guest, mut host| {
        drop(guest);
        let mut incoming = host.incoming.take().unwrap();
        let ended = host.runtime.block_on(async { timeout(HANG, incoming.tcp.recv()).await });
        assert!(ended.unwrap().is_none());
        assert!(matches!(host.stack.fault(), Some(LinkError::Closed)));
    });
}
