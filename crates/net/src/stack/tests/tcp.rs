//! Connections of an honest guest.

use std::sync::mpsc;

use smoltcp::socket::tcp;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};

use super::{DEFAULT_MTU, Guest, Host, bed};
use crate::stack::{MAX_MTU, MIN_MTU, Syn};

const V4: &str = "192.0.2.7:80";
const V6: &str = "[2001:db8::7]:80";

/// Bytes of which no two near each other are in the same place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251 + at) as u8).collect()
}

async fn echo(syn: Syn) {
    let mut stream = syn.accept();
    let (mut reader, mut writer) = split(&mut stream);
    copy(&mut reader, &mut writer).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// Has that much echoed, in a connection of its own.
pub(super) fn echoes(guest: &mut Guest, host: &mut Host, to: &str, length: usize) {
    host.serve(echo);
    let handle = guest.connected(to);
    let data = pattern(length);
    let (mut sent, mut received) = (0, Vec::new());
    guest.until(|guest| {
        let socket = guest.socket(handle);
        if sent < data.len() && socket.can_send() {
            sent += socket.send_slice(&data[sent..]).unwrap();
            if sent == data.len() {
                socket.close();
            }
        }
        while guest.socket(handle).can_recv() {
            guest.socket(handle).recv(|bytes| (bytes.len(), received.extend_from_slice(bytes))).unwrap();
        }
        received.len() == data.len()
    });
    assert!(received == data);
    guest.until(|guest| !guest.socket(handle).is_open());
}

#[test]
fn megabytes_come_back_as_they_were_sent() {
    for to in [V4, V6] {
        let (mut guest, mut host) = bed(DEFAULT_MTU);
        echoes(&mut guest, &mut host, to, 16 << 20);
    }
}

#[test]
fn every_packet_size_works() {
    for mtu in [MIN_MTU, 1500, 9000, MAX_MTU] {
        for to in [V4, V6] {
            let (mut guest, mut host) = bed(mtu);
            echoes(&mut guest, &mut host, to, 1 << 20);
        }
    }
}

#[test]
fn a_packet_size_out_of_range_is_refused() {
    for mtu in [0, MIN_MTU - 1, MAX_MTU + 1] {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(
            crate::stack::start(crate::stack::Link::Stream(ours), crate::stack::Settings { mtu }).is_err()
        );
    }
}

#[test]
fn a_syn_is_not_answered_before_it_is_accepted() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let handle = guest.connect(V4);
    let syn = host.syn(&mut guest);
    assert_eq!(syn.destination(), V4.parse().unwrap());
    guest.idle(20);
    assert_eq!(guest.socket(handle).state(), tcp::State::SynSent);
    let _stream = syn.accept();
    guest.until(|guest| guest.socket(handle).state() == tcp::State::Established);
}

#[test]
fn a_refused_syn_gets_a_reset() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    for to in [V4, V6] {
        let handle = guest.connect(to);
        host.syn(&mut guest).refuse();
        guest.closed(handle);
    }
    // Dropped in a panic or a time-out of whoever had it: the same.
    let handle = guest.connect(V4);
    drop(host.syn(&mut guest));
    guest.closed(handle);
}

#[test]
fn nobody_to_take_syns_refuses_them() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    drop(host.incoming.take());
    let handle = guest.connect(V4);
    guest.closed(handle);
}

#[test]
fn what_is_written_before_the_handshake_is_done_arrives() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    host.serve(async |syn| {
        let mut stream = syn.accept();
        stream.write_all(b"220 hello").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let handle = guest.connect(V4);
    assert_eq!(guest.receive(handle, 9), b"220 hello");
    guest.until(|guest| guest.socket(handle).state() == tcp::State::CloseWait);
}

#[test]
fn the_guest_ends_its_half_and_still_receives() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    host.serve(async |syn| {
        let mut stream = syn.accept();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(format!("{} bytes", all.len()).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let handle = guest.connected(V4);
    guest.send(handle, &vec![7; 100_000]);
    guest.socket(handle).close();
    assert_eq!(guest.receive(handle, 12), b"100000 bytes");
    guest.until(|guest| !guest.socket(handle).is_open());
}

#[test]
fn the_host_ends_its_half_and_still_receives() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let (told, hear) = mpsc::channel();
    host.serve(move |syn| {
        let told = told.clone();
        async move {
            let mut stream = syn.accept();
            stream.write_all(b"done").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            told.send(all.len()).unwrap();
        }
    });
    let handle = guest.connected(V4);
    assert_eq!(guest.receive(handle, 4), b"done");
    guest.until(|guest| guest.socket(handle).state() == tcp::State::CloseWait);
    guest.send(handle, &vec![7; 300_000]);
    guest.socket(handle).close();
    guest.closed(handle);
    assert_eq!(hear.recv().unwrap(), 300_000);
}

#[test]
fn a_stream_dropped_after_its_end_still_delivers() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    host.serve(async |syn| {
        let mut stream = syn.accept();
        stream.write_all(&pattern(400_000)).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let handle = guest.connect(V4);
    assert!(guest.receive(handle, 400_000) == pattern(400_000));
    guest.until(|guest| guest.socket(handle).state() == tcp::State::CloseWait);
    guest.socket(handle).close();
    guest.closed(handle);
}

#[test]
fn a_dropped_or_aborted_stream_resets_the_guest() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let handle = guest.connect(V4);
    let stream = host.syn(&mut guest).accept();
    guest.until(|guest| guest.socket(handle).state() == tcp::State::Established);
    drop(stream);
    guest.closed(handle);
    let handle = guest.connect(V6);
    let mut stream = host.syn(&mut guest).accept();
    guest.until(|guest| guest.socket(handle).state() == tcp::State::Established);
    host.runtime.block_on(stream.shutdown()).unwrap();
    stream.abort();
    guest.closed(handle);
    // Even before the guest heard of it.
    let handle = guest.connect(V4);
    drop(host.syn(&mut guest).accept());
    guest.closed(handle);
}

#[test]
fn a_reset_by_the_guest_is_an_error_once_everything_was_read() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let (told, hear) = mpsc::channel();
    host.serve(move |syn| {
        let told = told.clone();
        async move {
            let mut stream = syn.accept();
            let read = stream.read_u8().await.unwrap();
            let error = stream.read_u8().await.unwrap_err();
            let write = stream.write_all(b"x").await.unwrap_err();
            told.send((read, error.kind(), write.kind())).unwrap();
        }
    });
    let handle = guest.connected(V4);
    guest.send(handle, b"x");
    guest.idle(20);
    guest.socket(handle).abort();
    guest.idle(20);
    let reset = std::io::ErrorKind::ConnectionReset;
    assert_eq!(hear.recv().unwrap(), (b'x', reset, reset));
}

#[test]
fn a_guest_that_gives_up_waiting_resets_the_later_stream() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let handle = guest.connect(V4);
    let syn = host.syn(&mut guest);
    guest.socket(handle).abort();
    guest.idle(20);
    let mut stream = syn.accept();
    let error = host.runtime.block_on(stream.read_u8()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_host_that_does_not_read_stops_the_guest() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let handle = guest.connect(V4);
    let mut stream = host.syn(&mut guest).accept();
    let (mut sent, mut still) = (0, 0);
    guest.until(|guest| {
        let socket = guest.socket(handle);
        let now = if socket.can_send() { socket.send_slice(&[7; 4096]).unwrap() } else { 0 };
        sent += now;
        still = if now == 0 { still + 1 } else { 0 };
        still == 50
    });
    assert!(sent < 2 << 20, "{sent} bytes were taken");
    // And goes on when it does.
    let mut all = vec![0; sent];
    let reader = host.runtime.spawn(async move { stream.read_exact(&mut all).await.map(|_| stream) });
    guest.until(|_| reader.is_finished());
    guest.send(handle, b"more");
}

#[test]
fn a_guest_that_does_not_read_stops_the_host() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    host.serve(async |syn| {
        let mut stream = syn.accept();
        for _ in 0..64 {
            stream.write_all(&pattern(1 << 20)).await.unwrap();
        }
        stream.shutdown().await.unwrap();
    });
    let slow = guest.connected(V4);
    guest.idle(50);
    // It holds up nobody else.
    let other = guest.connected(V6);
    for _ in 0..8 {
        assert!(guest.receive(other, 1 << 20) == pattern(1 << 20));
    }
    assert!(guest.receive(slow, 1 << 20) == pattern(1 << 20));
}

#[test]
fn small_reads_do_not_stall_a_large_transfer() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let (told, hear) = mpsc::channel();
    host.serve(move |syn| {
        let told = told.clone();
        async move {
            let mut stream = syn.accept();
            let (mut all, mut buffer) = (Vec::new(), [0; 777]);
            loop {
                match stream.read(&mut buffer).await.unwrap() {
                    0 => break,
                    read => all.extend_from_slice(&buffer[..read]),
                }
            }
            told.send(all).unwrap();
        }
    });
    let handle = guest.connected(V4);
    guest.send(handle, &pattern(8 << 20));
    guest.socket(handle).close();
    let mut got = None;
    guest.until(|_| {
        got = hear.try_recv().ok();
        got.is_some()
    });
    assert!(got.unwrap() == pattern(8 << 20));
}

#[test]
fn a_port_can_be_used_again_at_once() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    host.serve(echo);
    for _ in 0..3 {
        guest.reuse_port();
        let handle = guest.connected(V4);
        guest.send(handle, b"again");
        assert_eq!(guest.receive(handle, 5), b"again");
        guest.socket(handle).close();
        guest.until(|guest| !guest.socket(handle).is_open());
        guest.sockets.remove(handle);
    }
}

#[test]
fn the_end_of_the_link_ends_the_streams() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    let handle = guest.connect(V4);
    let mut stream = host.syn(&mut guest).accept();
    guest.until(|guest| guest.socket(handle).state() == tcp::State::Established);
    drop(guest);
    let Host { runtime, stack, incoming } = host;
    assert!(runtime.block_on(stream.read_u8()).is_err());
    assert!(runtime.block_on(incoming.unwrap().tcp.recv()).is_none());
    assert!(matches!(stack.fault(), Some(crate::stack::LinkError::Closed)));
}

#[test]
fn the_end_of_the_stack_ends_the_streams() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    guest.connect(V4);
    let mut stream = host.syn(&mut guest).accept();
    guest.connect(V6);
    let syn = host.syn(&mut guest);
    let Host { runtime, stack, .. } = host;
    drop(stack);
    assert!(runtime.block_on(stream.read_u8()).is_err());
    assert!(runtime.block_on(syn.accept().write_all(b"x")).is_err());
}
