//! A guest that sends whatever it likes, from the outside: the stack lives on, and the next honest
//! connection works. What exactly is dropped is in the tests of the filter.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Instant;

use smoltcp::wire::{EthernetFrame, EthernetProtocol, Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::frames::{self, Segment, guest as end};
use super::{DEFAULT_MTU, Dropped, Guest, HANG, Host, bed};
use crate::addresses::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4};
use crate::stack::engine::PENDING;
use crate::stack::flow::{BUFFERS, LARGEST, SMALLEST, buffer_size};
use crate::stack::{LinkError, Stream, Syn};

const V4: &str = "192.0.2.7:80";

fn to(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Says hello to every connection, and ends with it.
pub(super) async fn hello(syn: Syn) {
    let mut stream = syn.accept();
    let _ = stream.write_all(b"hello").await;
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer).await {}
    let _ = stream.shutdown().await;
}

pub(super) fn works(guest: &mut Guest) {
    for to in ["198.51.100.1:80", "[2001:db8::1]:80"] {
        let handle = guest.connected(to);
        assert_eq!(guest.receive(handle, 5), b"hello");
        guest.socket(handle).abort();
        guest.idle(2);
        guest.sockets.remove(handle);
    }
}

/// A pseudo-random number; the same ones each time, so that a failure can be repeated.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 24
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[test]
fn the_gateway_answers_for_itself() {
    let (mut guest, _host) = bed(DEFAULT_MTU);
    guest.frame(&frames::who_has_gateway());
    let answer = guest.next_frame();
    assert_eq!((&answer[..6], &answer[6..12]), (&GUEST_MAC[..], &GATEWAY_MAC[..]));
    assert_eq!((&answer[22..28], &answer[28..32]), (&GATEWAY_MAC[..], &GATEWAY_V4.octets()[..]));
    guest.frame(&frames::ping(GATEWAY_V4.into(), b"payload"));
    let answer = guest.next_frame();
    let packet = Ipv4Packet::new_checked(&answer[14..]).unwrap();
    assert_eq!((packet.src_addr(), packet.dst_addr()), (GATEWAY_V4, GUEST_V4));
    assert!(packet.verify_checksum() && packet.payload()[0] == 0 && packet.payload().ends_with(b"payload"));
    guest.frame(&frames::solicit(crate::addresses::GUEST_V6, GATEWAY_V6));
    let answer = guest.next_frame();
    assert_eq!((answer[54], &answer[78 + 2..78 + 8]), (136, &GATEWAY_MAC[..]));
    guest.frame(&frames::ping(GATEWAY_V6.into(), b"payload"));
    let answer = guest.next_frame();
    assert!(answer[54] == 129 && answer.ends_with(b"payload"));
}

#[test]
fn it_answers_for_nobody_else() {
    let (mut guest, host) = bed(DEFAULT_MTU);
    let other = [100, 127, 255, 3].into();
    let mut count = 0;
    for asked in [GUEST_V4, other] {
        guest.frame(&frames::arp(smoltcp::wire::ArpOperation::Request, (GUEST_MAC, GUEST_V4), asked));
        count += 1;
    }
    guest.frame(&frames::solicit(crate::addresses::GUEST_V6, "fd6d:6174:6368::2".parse().unwrap()));
    guest.frame(&frames::ping(frames::address("192.0.2.7"), b"outside"));
    host.wait_dropped(Dropped::Arp, count);
    host.wait_dropped(Dropped::Icmp, 1);
    // The first answer is to this one.
    guest.frame(&frames::ping(GATEWAY_V4.into(), b"inside"));
    assert!(guest.next_frame().ends_with(b"inside"));
}

#[test]
fn garbage_of_every_kind_leaves_no_trace() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    host.serve(hello);
    let mut chance = Chance(1);
    let honest = [
        Segment::syn(end(2000, to(V4)), to(V4)).frame(),
        frames::udp(end(2000, to(V4)), to(V4), b"query"),
        frames::who_has_gateway(),
        frames::solicit(crate::addresses::GUEST_V6, GATEWAY_V6),
        frames::ping(GATEWAY_V6.into(), b"ping"),
    ];
    for _ in 0..20_000 {
        let mut frame = honest[chance.below(5) as usize].clone();
        for _ in 0..chance.below(5) {
            let at = chance.below(frame.len() as u64) as usize;
            frame[at] = chance.next() as u8;
        }
        frame.truncate(1 + chance.below(frame.len() as u64) as usize);
        guest.frame(&frame);
        guest.poll();
    }
    works(&mut guest);
}

#[test]
fn frames_longer_than_the_mtu_are_dropped() {
    let (mut guest, mut host) = bed(1500);
    host.serve(hello);
    guest.frame(&frames::ping(GATEWAY_V4.into(), &vec![0; 60_000]));
    guest.frame(&frames::ethernet(GATEWAY_MAC, GUEST_MAC, EthernetProtocol::Ipv4, &vec![0; 69_000]));
    host.wait_dropped(Dropped::Malformed, 2);
    works(&mut guest);
}

#[test]
fn a_syn_flood_is_bounded_and_passes() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let flood = 20_000;
    for number in 0..flood {
        let destination = SocketAddr::new([203, 0, (number >> 8) as u8, number as u8].into(), 80);
        guest.frame(&Segment::syn(end(number, destination), destination).frame());
        guest.poll();
    }
    // Port 0 is not among them.
    host.wait_dropped(Dropped::Pending, u64::from(flood) - 1 - PENDING as u64);
    let incoming = host.incoming.as_mut().unwrap();
    let mut syns = Vec::new();
    while let Ok(syn) = incoming.tcp.try_recv() {
        syns.push(syn);
    }
    assert_eq!(syns.len(), PENDING);
    drop(syns);
    host.serve(hello);
    works(&mut guest);
}

#[test]
fn segments_of_no_connection_are_reset() {
    let (mut guest, _host) = bed(DEFAULT_MTU);
    for control in [TcpControl::None, TcpControl::Psh, TcpControl::Fin] {
        let mut stray = Segment::syn(end(2000, to(V4)), to(V4));
        (stray.control, stray.acknowledged, stray.payload) = (control, Some(77), b"stray");
        guest.frame(&stray.frame());
        let answer = guest.next_frame();
        assert!(segment(&answer).rst() && segment(&answer).seq_number().0 == 77);
    }
}

#[test]
fn wild_lengths_end_the_link() {
    for length in [0_u32, 70_000, 0x7fff_ffff, u32::MAX] {
        let (guest, mut host) = bed(DEFAULT_MTU);
        guest.link().write_all(&length.to_be_bytes()).unwrap();
        let mut incoming = host.incoming.take().unwrap();
        assert!(host.runtime.block_on(incoming.tcp.recv()).is_none());
        assert!(matches!(host.stack.fault(), Some(LinkError::Length { length: told }) if *told == length));
    }
}

#[test]
fn a_guest_that_never_reads_takes_no_more_than_its_share() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let ping = frames::ping(GATEWAY_V4.into(), &vec![7; 60_000]);
    for _ in 0..500 {
        guest.frame(&ping);
    }
    let replies = host.stack.replies();
    let from = to("192.0.2.7:9");
    let mut sent = 0;
    while replies.send(from, end(9, from), vec![7; 60_000].into()) {
        sent += 1;
        assert!(sent < 100, "without a limit");
    }
    host.serve(hello);
    // What was not dropped is dropped by this guest.
    works(&mut guest);
}

fn segment(frame: &[u8]) -> TcpPacket<&[u8]> {
    let frame = EthernetFrame::new_checked(frame).unwrap();
    let segment = match frame.ethertype() {
        EthernetProtocol::Ipv6 => Ipv6Packet::new_checked(frame.payload()).unwrap().payload(),
        _ => Ipv4Packet::new_checked(frame.payload()).unwrap().payload(),
    };
    TcpPacket::new_checked(segment).unwrap()
}

/// Opens a connection by hand; where each side counts from.
pub(super) fn open(guest: &mut Guest, from: SocketAddr, to: SocketAddr) -> (i32, i32) {
    let mut syn = Segment::syn(from, to);
    guest.frame(&syn.frame());
    // Others may still get something, and this guest's own TCP/IP its answer to ARP.
    let mut answer = guest.next_frame();
    while answer[12..14] == [8, 6] || segment(&answer).dst_port() != from.port() {
        answer = guest.next_frame();
    }
    let answer = segment(&answer);
    assert!(answer.syn() && answer.ack());
    let (ours, theirs) = (syn.sequence + 1, answer.seq_number().0.wrapping_add(1));
    (syn.control, syn.sequence, syn.acknowledged) = (TcpControl::None, ours, Some(theirs));
    guest.frame(&syn.frame());
    (ours, theirs)
}

#[test]
fn nonsense_on_an_open_connection_breaks_nothing_else() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    host.serve(hello);
    let mut chance = Chance(2);
    let payload = [7; 3000];
    for round in 0..60_u16 {
        let from = end(3000 + round, to(V4));
        let (ours, theirs) = open(&mut guest, from, to(V4));
        for _ in 0..300 {
            let near = |base: i32, chance: &mut Chance| match chance.below(4) {
                0 => base,
                1 => base.wrapping_add(chance.below(70_000) as i32),
                2 => base.wrapping_sub(chance.below(70_000) as i32),
                _ => chance.next() as i32,
            };
            let controls = [TcpControl::None, TcpControl::Psh, TcpControl::None, TcpControl::Fin];
            let mut control = controls[chance.below(4) as usize];
            if chance.below(100) == 0 {
                control = if chance.below(2) == 0 { TcpControl::Rst } else { TcpControl::Syn };
            }
            let (sequence, acknowledged) = (near(ours, &mut chance), near(theirs, &mut chance));
            let nonsense = Segment {
                from,
                to: to(V4),
                control,
                sequence,
                acknowledged: (control != TcpControl::Syn && chance.below(8) > 0).then_some(acknowledged),
                window: chance.next() as u16,
                payload: match control {
                    TcpControl::Syn => &[],
                    _ => &payload[..chance.below(3000) as usize],
                },
            };
            guest.frame(&nonsense.frame());
        }
        // All of what was said to it, until nothing more comes.
        guest.drain();
    }
    works(&mut guest);
}

/// A connection opened by hand, whose guest sends any part of a payload at any time.
struct Sender {
    from: SocketAddr,
    ends: (i32, i32),
    payload: Vec<u8>,
}

impl Sender {
    /// Begins with a stream on the host that nobody reads yet. The payload is longer than the window.
    fn new(guest: &mut Guest, host: &mut Host) -> (Self, Stream) {
        let from = end(2000, to(V4));
        let mut syn = Segment::syn(from, to(V4));
        guest.frame(&syn.frame());
        let stream = host.syn(guest).accept();
        let theirs = segment(&guest.next_frame()).seq_number().0.wrapping_add(1);
        let ours = syn.sequence + 1;
        (syn.control, syn.sequence, syn.acknowledged) = (TcpControl::None, ours, Some(theirs));
        guest.frame(&syn.frame());
        let payload = (0..LARGEST + 1000).map(|at| (at / 251 + at) as u8).collect();
        (Self { from, ends: (ours, theirs), payload }, stream)
    }

    /// Sends that part of it, with a FIN if it is the last.
    fn send(&self, guest: &mut Guest, part: std::ops::Range<usize>) {
        let last = part.end == self.payload.len();
        let sent = Segment {
            from: self.from,
            to: to(V4),
            control: if last { TcpControl::Fin } else { TcpControl::Psh },
            sequence: self.ends.0 + part.start as i32,
            acknowledged: Some(self.ends.1),
            window: 64_000,
            payload: &self.payload[part],
        };
        guest.frame(&sent.frame());
    }

    /// Sends it in order from one place to another.
    fn fill(&self, guest: &mut Guest, part: std::ops::Range<usize>) {
        for start in part.clone().step_by(60_000) {
            self.send(guest, start..part.end.min(start + 60_000));
        }
    }

    /// Lets the stream be read, sends again from `start`, and expects every byte to arrive.
    fn finish(&self, guest: &mut Guest, host: &Host, mut stream: Stream, start: usize) {
        let reader = host.runtime.spawn(async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.map(|_| all)
        });
        let since = Instant::now();
        while !reader.is_finished() {
            assert!(since.elapsed() < HANG, "it does not end");
            self.fill(guest, start..self.payload.len());
            guest.drain();
        }
        let all = host.runtime.block_on(reader).unwrap().unwrap();
        assert_eq!(all.len(), self.payload.len());
        assert!(all == self.payload);
    }
}

/// Waits until everything that was sent has been looked at.
fn settle(guest: &mut Guest) {
    guest.frame(&frames::ping(GATEWAY_V4.into(), b"settled"));
    while !guest.next_frame().ends_with(b"settled") {}
}

#[test]
fn last_data_beyond_the_window_are_not_lost() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let (sender, stream) = Sender::new(&mut guest, &mut host);
    let edge = LARGEST - 500;
    sender.fill(&mut guest, 0..edge);
    // More than fits, and the end: what does not fit must be asked for again.
    sender.send(&mut guest, edge..sender.payload.len());
    settle(&mut guest);
    sender.finish(&mut guest, &host, stream, edge);
}

#[test]
fn data_beyond_the_buffer_right_after_the_handshake_break_nothing() {
    for out_of_order in [false, true] {
        let (mut guest, mut host) = bed(DEFAULT_MTU);
        let (sender, stream) = Sender::new(&mut guest, &mut host);
        let edge = LARGEST - 10_000;
        if out_of_order {
            sender.send(&mut guest, edge..LARGEST + 900);
            sender.fill(&mut guest, 0..edge);
        } else {
            sender.fill(&mut guest, 0..LARGEST + 900);
        }
        settle(&mut guest);
        assert!(host.stack.fault().is_none());
        sender.finish(&mut guest, &host, stream, edge);
    }
}

#[test]
fn data_after_the_end_are_not_taken() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let from = end(2000, to(V4));
    guest.frame(&Segment::syn(from, to(V4)).frame());
    let mut stream = host.syn(&mut guest).accept();
    let theirs = segment(&guest.next_frame()).seq_number().0.wrapping_add(1);
    let mut sent = Segment::syn(from, to(V4));
    sent.acknowledged = Some(theirs);
    for (control, sequence, payload) in [
        (TcpControl::Fin, 1001, &b"before"[..]),
        (TcpControl::Psh, 1008, b"after"),
        (TcpControl::Fin, 1013, b"and again"),
        // Where smoltcp's numbers wrap.
        (TcpControl::Psh, 1008_i32.wrapping_add(i32::MAX), b"far"),
        (TcpControl::Psh, 1008_i32.wrapping_add(i32::MIN), b"far"),
    ] {
        (sent.control, sent.sequence, sent.payload) = (control, sequence, payload);
        guest.frame(&sent.frame());
    }
    settle(&mut guest);
    let mut all = Vec::new();
    host.runtime.block_on(stream.read_to_end(&mut all)).unwrap();
    assert_eq!(all, b"before");
}

#[test]
fn buffers_of_every_size_hold_the_window_of_the_handshake() {
    for left in (0..=BUFFERS).step_by(4096) {
        let size = buffer_size(left);
        assert!((SMALLEST..=LARGEST).contains(&size));
        // As smoltcp computes it.
        let shift = (usize::BITS - size.leading_zeros()).saturating_sub(16);
        let window = usize::from(u16::try_from(size).unwrap_or(u16::MAX)) << shift;
        assert!(window <= size, "{size}");
    }
}

#[test]
fn a_window_that_opens_late_gets_the_rest_of_an_ended_stream() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    host.serve(async |syn| {
        let mut stream = syn.accept();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        stream.write_all(&vec![7; 100_000]).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let from = end(2000, to(V4));
    let (ours, mut theirs) = open(&mut guest, from, to(V4));
    // The handshake said that windows are in units of 128 bytes.
    let mut fin = Segment::syn(from, to(V4));
    (fin.control, fin.sequence, fin.acknowledged, fin.window) = (TcpControl::Fin, ours, Some(theirs), 8);
    guest.frame(&fin.frame());
    let mut next = |guest: &mut Guest, longest: usize| loop {
        let frame = guest.next_frame();
        let segment = segment(&frame);
        if (2..=longest).contains(&segment.payload().len()) {
            theirs = segment.seq_number().0 + segment.payload().len() as i32;
            break theirs;
        }
    };
    let mut update = Segment::syn(from, to(V4));
    (update.control, update.sequence) = (TcpControl::None, ours + 1);
    update.acknowledged = Some(next(&mut guest, 1024));
    for window in [0, 1000] {
        update.window = window;
        guest.frame(&update.frame());
    }
    next(&mut guest, 65_535);
}

#[test]
fn a_guest_that_forgot_a_connection_can_open_it_again() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let from = end(2000, to(V4));
    guest.frame(&Segment::syn(from, to(V4)).frame());
    let mut old = host.syn(&mut guest).accept();
    guest.next_frame();
    let mut again = Segment::syn(from, to(V4));
    again.sequence = 5000;
    guest.frame(&again.frame());
    let syn = host.syn(&mut guest);
    assert_eq!(syn.source(), from);
    let error = host.runtime.block_on(old.read_u8()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let _stream = syn.accept();
    let answer = guest.next_frame();
    assert!(segment(&answer).syn() && segment(&answer).ack_number().0 == 5001);
    drop(old);
    assert_eq!(host.dropped(Dropped::Flags), 0);
}

#[test]
fn nothing_is_counted_for_an_honest_guest() {
    let (mut guest, mut host): (Guest, Host) = bed(DEFAULT_MTU);
    host.serve(hello);
    works(&mut guest);
    assert!(host.stack.dropped().all(|(_, count)| count == 0));
}
