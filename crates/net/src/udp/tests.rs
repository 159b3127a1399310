use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use api::network::NetworkSpec;
use bytes::Bytes;
use smoltcp::wire::{EthernetFrame, Ipv4Packet, UdpPacket};
use tokio::net::UdpSocket;

use super::*;
use crate::addresses::GUEST_V4;
use crate::stack::{Link, Settings, Stack, start};

/// A NAT whose policy admits loopback for the sake of the test, by a name of `add_hosts`.
struct Bed {
    datagrams: mpsc::Sender<Datagram>,
    policy: watch::Sender<Policy>,
    events: Arc<Mutex<Vec<NetworkEvent>>>,
    link: std::os::unix::net::UnixStream,
    _stack: Stack,
}

fn policy(allowed: &[&str], loopback: bool) -> Policy {
    let spec = NetworkSpec {
        allowed_hosts: allowed.iter().map(|&host| host.to_owned()).collect(),
        ..NetworkSpec::default()
    };
    let added = loopback.then(|| ([127, 0, 0, 1].into(), "here.test".to_owned()));
    Policy::compile(&spec, added.as_slice(), BTreeMap::new()).unwrap()
}

fn bed(policy: Policy) -> Bed {
    let (ours, link) = std::os::unix::net::UnixStream::pair().unwrap();
    let (stack, _) = start(Link::Stream(ours), Settings::default()).unwrap();
    let (datagrams, receiver) = mpsc::channel(512);
    let (policy, watched) = watch::channel(policy);
    let events: Arc<Mutex<Vec<NetworkEvent>>> = Arc::default();
    let heard = events.clone();
    let reporter = Reporter::new(move |event| heard.lock().unwrap().push(event));
    tokio::spawn(nat(receiver, stack.replies(), watched, |_| Vec::new(), reporter));
    Bed { datagrams, policy, events, link, _stack: stack }
}

impl Bed {
    async fn send(&self, port: u16, to: SocketAddr, payload: &'static [u8]) {
        let source = SocketAddr::new(GUEST_V4.into(), port);
        let payload = Bytes::from_static(payload);
        self.datagrams.send(Datagram { source, destination: to, payload }).await.unwrap();
    }

    /// What the guest gets next: from, to its port, what.
    async fn reply(&self) -> (SocketAddr, u16, Vec<u8>) {
        let mut link = self.link.try_clone().unwrap();
        let read = move || {
            let mut length = [0; 4];
            std::io::Read::read_exact(&mut link, &mut length).unwrap();
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            std::io::Read::read_exact(&mut link, &mut frame).unwrap();
            frame
        };
        let frame = tokio::task::spawn_blocking(read).await.unwrap();
        let frame = EthernetFrame::new_checked(&frame[..]).unwrap();
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        assert!(packet.verify_checksum() && packet.dst_addr() == GUEST_V4);
        let datagram = UdpPacket::new_checked(packet.payload()).unwrap();
        assert!(datagram.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into()));
        let from = SocketAddr::new(packet.src_addr().into(), datagram.src_port());
        (from, datagram.dst_port(), datagram.payload().to_vec())
    }

    async fn events(&self, count: usize) -> Vec<NetworkEvent> {
        loop {
            let events = self.events.lock().unwrap().clone();
            if events.len() >= count {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn server() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn answers_come_back_from_where_the_guest_sent_to() {
    let bed = bed(policy(&[], true));
    let (server, address) = server().await;
    let mut peers = Vec::new();
    for port in [5000, 5001] {
        bed.send(port, address, b"ping").await;
        let mut buffer = [0; 16];
        let (length, peer) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"ping");
        peers.push(peer);
        server.send_to(b"pong", peer).await.unwrap();
        assert_eq!(bed.reply().await, (address, port, b"pong".to_vec()));
    }
    assert_ne!(peers[0], peers[1]);
}

#[tokio::test]
async fn nobody_else_can_answer() {
    let bed = bed(policy(&[], true));
    let (server, address) = server().await;
    bed.send(5000, address, b"ping").await;
    let (_, peer) = server.recv_from(&mut [0; 16]).await.unwrap();
    let (other, _) = self::server().await;
    // The kernel refuses or drops it; which of them is its own affair.
    let _ = other.send_to(b"spoofed", peer).await;
    server.send_to(b"real", peer).await.unwrap();
    assert_eq!(bed.reply().await.2, b"real");
}

#[tokio::test]
async fn private_addresses_are_refused_and_told_of_once() {
    let bed = bed(policy(&[], false));
    let (server, address) = server().await;
    for _ in 0..100 {
        bed.send(5000, address, b"ping").await;
        bed.send(5000, "169.254.169.254:80".parse().unwrap(), b"ping").await;
        bed.send(5000, "[::ffff:10.0.0.1]:80".parse().unwrap(), b"ping").await;
    }
    let events = bed.events(3).await;
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event.blocked && event.method == "UDP"));
    assert_eq!(events[0].url, format!("udp://{address}"));
    assert!(server.try_recv(&mut [0; 16]).is_err());
}

#[tokio::test]
async fn quic_and_other_udp_of_a_sealed_sandbox_goes_nowhere() {
    let bed = bed(policy(&["here.test", "127.0.0.1"], true));
    let (server, address) = server().await;
    bed.send(5000, address, b"ping").await;
    let events = bed.events(1).await;
    assert_eq!((events[0].blocked, events[0].block_code.as_deref()), (true, Some("udp")));
    assert!(server.try_recv(&mut [0; 16]).is_err());
}

#[tokio::test]
async fn a_scan_does_not_fill_the_log() {
    let bed = bed(policy(&[], false));
    for low in 0..2000_u16 {
        let [high, low] = low.to_be_bytes();
        bed.send(5000, SocketAddr::new([10, 0, high, low].into(), 9), b"scan").await;
    }
    bed.events(TELL).await;
    while bed.datagrams.capacity() < bed.datagrams.max_capacity() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bed.events.lock().unwrap().len(), TELL);
}

#[tokio::test]
async fn dns_never_passes() {
    let bed = bed(policy(&[], true));
    bed.send(5000, "127.0.0.1:53".parse().unwrap(), b"query").await;
    let (server, address) = server().await;
    bed.send(5000, address, b"ping").await;
    server.recv_from(&mut [0; 16]).await.unwrap();
    assert!(bed.events.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_change_of_the_policy_ends_what_it_no_longer_allows() {
    let bed = bed(policy(&[], true));
    let (server, address) = server().await;
    bed.send(5000, address, b"1").await;
    let (_, peer) = server.recv_from(&mut [0; 16]).await.unwrap();
    bed.policy.send(policy(&["elsewhere.test"], true)).unwrap();
    let events = bed.events(1).await;
    assert_eq!((events[0].blocked, events[0].request_bytes), (false, 1));
    let _ = server.send_to(b"late", peer).await;
    bed.send(5000, address, b"2").await;
    assert!(bed.events(2).await[1].blocked);
    assert!(server.try_recv(&mut [0; 16]).is_err());
}

#[tokio::test]
async fn more_conversations_than_the_limit_end_the_oldest() {
    let bed = bed(policy(&[], true));
    let (server, address) = server().await;
    let guest_ports = u16::try_from(MAPPINGS).unwrap() + 8;
    for port in 1..=guest_ports {
        bed.send(port, address, b"x").await;
        server.recv_from(&mut [0; 16]).await.unwrap();
    }
    assert_eq!(bed.events(8).await.len(), 8);
}

#[tokio::test]
async fn a_silent_conversation_ends_and_tells_what_passed() {
    let bed = bed(policy(&[], true));
    let (server, address) = server().await;
    bed.send(5000, address, b"ping").await;
    let (_, peer) = server.recv_from(&mut [0; 16]).await.unwrap();
    server.send_to(b"answer", peer).await.unwrap();
    bed.reply().await;
    tokio::time::pause();
    tokio::time::advance(IDLE + Duration::from_secs(1)).await;
    let events = bed.events(1).await;
    assert_eq!((events[0].request_bytes, events[0].response_bytes), (4, 6));
}
