//! A packet socket on a TAP device, with a guest that reads and writes the device's file.
#![expect(clippy::unwrap_used, reason = "in a test, a failure is the result")]

mod tap;

use std::io::ErrorKind;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendFlags, netdevice::name_to_index, send};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use sys::packet::{Batch, Checksum, LONGEST, Offload, PacketSocket};
use tap::{MTU, PLAIN, Tap, alone};

fn pair() -> (Tap, PacketSocket) {
    let (tap, socket) = Tap::new();
    (tap, PacketSocket::new(socket).unwrap())
}

/// A frame of that length, whose content depends on `number`.
fn frame(length: usize, number: usize) -> Vec<u8> {
    let mut frame = vec![2; 14];
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame.extend((14..length).map(|at| (at / 251 + at + number) as u8));
    frame
}

/// What is ready at once or within a second.
fn ready(socket: &PacketSocket) -> PollFlags {
    let mut ready = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut ready, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
    ready[0].revents()
}

/// The next frame, which is whole and complete.
fn next(socket: &mut PacketSocket) -> Vec<u8> {
    assert_eq!(ready(socket), PollFlags::IN);
    let mut received = socket.receive().unwrap();
    assert!(received.intact);
    assert_eq!(received.offload, Offload::default());
    received.frame().to_vec()
}

#[test]
fn frames_pass_both_ways_whole_and_in_order() {
    alone("frames_pass_both_ways_whole_and_in_order", || {
        let (mut tap, mut socket) = pair();
        let longest = 14 + usize::from(MTU);
        // Several times around the ring.
        for round in 0..10 {
            for number in 0..40 {
                let length = [60, 1514, longest][(round + number) % 3];
                tap.send(PLAIN, &frame(length, number)).unwrap();
                assert!(socket.send(&frame(length, number + 1)).unwrap());
            }
            for number in 0..40 {
                let length = [60, 1514, longest][(round + number) % 3];
                assert!(next(&mut socket) == frame(length, number), "frame {number} of round {round}");
                assert!(tap.receive().unwrap() == frame(length, number + 1));
            }
            // What we sent is not among what came.
            assert!(socket.receive().is_none() && tap.receive().is_none());
        }
    });
}

#[test]
fn who_takes_over_the_socket_needs_no_capability() {
    alone("who_takes_over_the_socket_needs_no_capability", || {
        let (mut tap, socket) = Tap::new();
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, sets).unwrap();
        let mut socket = PacketSocket::new(socket).unwrap();
        tap.send(PLAIN, &frame(100, 0)).unwrap();
        assert_eq!(next(&mut socket), frame(100, 0));
        assert!(socket.send(&frame(100, 1)).unwrap());
    });
}

#[test]
fn what_is_left_to_be_done_is_told() {
    alone("what_is_left_to_be_done_is_told", || {
        let (mut tap, mut socket) = pair();
        // An IPv4 TCP segment.
        let mut sent = frame(60_000, 0);
        sent[12..14].copy_from_slice(&[8, 0]);
        sent[14..24].copy_from_slice(&[0x45, 0, 0xea, 0x52, 0, 0, 0, 0, 64, 6]);
        sent[46] = 0x50;
        let sum = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0];
        let segments = [1, 1, 54, 0, 0, 4, 34, 0, 16, 0];
        for (header, batch) in [(sum, Batch::No), (segments, Batch::Tcp)] {
            tap.send(header, &sent).unwrap();
            let mut received = socket.receive().unwrap();
            let checksum = Some(Checksum { start: 34, offset: 16 });
            assert_eq!(received.offload, Offload { checksum, batch });
            assert!(received.intact && received.frame() == sent);
        }
    });
}

#[test]
fn a_vlan_tag_does_not_go_unnoticed() {
    alone("a_vlan_tag_does_not_go_unnoticed", || {
        let (mut tap, mut socket) = pair();
        let mut tagged = frame(64, 0);
        tagged[12..16].copy_from_slice(&[0x81, 0, 0, 5]);
        tap.send(PLAIN, &tagged).unwrap();
        assert!(!socket.receive().unwrap().intact);
        tap.send(PLAIN, &frame(64, 1)).unwrap();
        assert_eq!(next(&mut socket), frame(64, 1));
    });
}

#[test]
fn what_the_host_itself_sends_is_not_received() {
    alone("what_the_host_itself_sends_is_not_received", || {
        let (mut tap, mut socket) = pair();
        let host = sys::packet::open(name_to_index(&socket, "tap0").unwrap()).unwrap();
        send(&host, &frame(100, 1), SendFlags::empty()).unwrap();
        assert_eq!(tap.receive().unwrap(), frame(100, 1));
        assert!(socket.receive().is_none());
    });
}

#[test]
fn a_full_ring_loses_what_comes_and_nothing_else() {
    alone("a_full_ring_loses_what_comes_and_nothing_else", || {
        let (mut tap, mut socket) = pair();
        for round in 0..3 {
            for number in 0..200 {
                tap.send(PLAIN, &frame(100, round + number)).unwrap();
            }
            let mut got = 0;
            while let Some(mut received) = socket.receive() {
                assert_eq!(received.frame(), frame(100, round + got));
                got += 1;
            }
            assert!((48..=64).contains(&got), "{got} slots");
        }
    });
}

#[test]
fn what_is_longer_than_the_device_s_mtu_is_lost_and_nothing_else() {
    alone("what_is_longer_than_the_device_s_mtu_is_lost_and_nothing_else", || {
        let (mut tap, socket) = pair();
        let longest = 14 + usize::from(MTU);
        for length in [longest + 1, LONGEST, longest] {
            assert!(socket.send(&frame(length, 0)).unwrap());
        }
        assert!(tap.receive().unwrap() == frame(longest, 0));
        assert!(tap.receive().is_none());
    });
}

#[test]
fn a_device_that_nobody_reads_takes_no_more_and_then_goes_on() {
    alone("a_device_that_nobody_reads_takes_no_more_and_then_goes_on", || {
        let (mut tap, socket) = pair();
        let mut sent = 0;
        while socket.send(&frame(100, sent)).unwrap() {
            sent += 1;
            assert!(sent < 100_000, "without a limit");
        }
        for number in 0..sent {
            assert_eq!(tap.receive().unwrap(), frame(100, number));
        }
        assert!(tap.receive().is_none());
        assert!(socket.send(&frame(100, sent)).unwrap());
        assert_eq!(tap.receive().unwrap(), frame(100, sent));
    });
}

#[test]
fn a_device_that_is_gone_is_an_error() {
    alone("a_device_that_is_gone_is_an_error", || {
        let (mut tap, mut socket) = pair();
        tap.send(PLAIN, &frame(100, 0)).unwrap();
        drop(tap);
        // What came before can still be received.
        assert!(ready(&socket).contains(PollFlags::ERR | PollFlags::IN));
        assert_eq!(socket.receive().unwrap().frame(), frame(100, 0));
        assert!(socket.receive().is_none());
        for _ in 0..3 {
            assert_eq!(socket.send(&frame(100, 0)).unwrap_err().kind(), ErrorKind::NetworkDown);
        }
    });
}

#[test]
fn datagrams_to_be_cut_are_told() {
    alone("datagrams_to_be_cut_are_told", || {
        let (mut tap, mut socket) = pair();
        let mut sent = frame(6000, 0);
        sent[12..14].copy_from_slice(&[8, 0]);
        sent[14..24].copy_from_slice(&[0x45, 0, 0x17, 0x62, 0, 0, 0, 0, 64, 17]);
        tap.send([1, 5, 42, 0, 0, 4, 34, 0, 6, 0], &sent).unwrap();
        assert_eq!(socket.receive().unwrap().offload.batch, Batch::Other);
        tap.send(PLAIN, &frame(64, 1)).unwrap();
        assert_eq!(next(&mut socket), frame(64, 1));
    });
}
