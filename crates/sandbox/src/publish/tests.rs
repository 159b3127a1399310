//! Published ports between real clients and a guest played by hand.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use proto::Port;
use proto::forward::{Answer, Connect};
use proto::frame::{HEADER_LEN, Header, Reason, StreamId};
use proto::message;
use proto::mux::{Event, Mux, Side};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use vmm::Channel;

use super::*;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const PATIENCE: Duration = Duration::from_secs(20);
/// For how long a socket that is closed may still be there: a child that another test has just forked has
/// it until it executes its program.
const LINGER: Duration = Duration::from_secs(1);

/// Ports of the guest. What comes is sent back.
const ECHO: u16 = 7;
/// The connection is broken off when something comes.
const BREAK: u16 = 8;
/// Says which port it is and ends.
const NAME: u16 = 9;
const NOBODY: u16 = 10;

/// What the guest tells of: how each stream ended.
type Ends = mpsc::UnboundedReceiver<Event>;

fn publisher() -> (Publisher, Ends) {
    let (host, guest) = UnixStream::pair().unwrap();
    let (sender, ends) = mpsc::unbounded_channel();
    tokio::spawn(Guest { socket: guest, mux: Mux::new(Side::Guest), streams: HashMap::new(), sender }.run());
    (Ports::new(Agent::new(Channel::new(host, &[]))).publisher(), ends)
}

struct Guest {
    socket: UnixStream,
    mux: Mux,
    streams: HashMap<StreamId, Flow>,
    sender: mpsc::UnboundedSender<Event>,
}

#[derive(Default)]
struct Flow {
    port: Option<u16>,
    received: Vec<u8>,
    /// Not sent yet, for want of credit.
    unsent: Vec<u8>,
    finished: bool,
}

impl Guest {
    /// Until the host is gone.
    async fn run(mut self) {
        let mut header = [0; HEADER_LEN];
        while self.socket.read_exact(&mut header).await.is_ok() {
            let header = Header::decode(&header).unwrap();
            let mut payload = vec![0; header.payload_len()];
            self.socket.read_exact(&mut payload).await.unwrap();
            let event = self.mux.receive(header).unwrap();
            match event {
                Event::Opened { stream, port } => {
                    assert_eq!(port, Port::Forward as u32);
                    self.streams.insert(stream, Flow::default());
                }
                Event::Data { stream, .. } => {
                    let credit = self.mux.taken(stream, payload.len());
                    self.frame(credit, &[]).await;
                    self.arrived(stream, &payload).await;
                }
                Event::Writable { stream } => self.flush(stream).await,
                Event::Finished { stream } => {
                    if let Some(flow) = self.streams.get_mut(&stream) {
                        flow.finished = true;
                        self.flush(stream).await;
                    }
                    let _ = self.sender.send(event);
                }
                Event::Reset { stream, .. } => {
                    self.streams.remove(&stream);
                    let _ = self.sender.send(event);
                }
                Event::Overload { .. } | Event::Stale { .. } => {}
            }
        }
    }

    async fn arrived(&mut self, stream: StreamId, payload: &[u8]) {
        let Some(flow) = self.streams.get_mut(&stream) else { return };
        flow.received.extend(payload);
        match flow.port {
            None => {
                let prefix = message::PREFIX_LEN;
                let Connect { port } = message::decode(&flow.received[prefix..]).unwrap();
                flow.port = Some(port);
                flow.received.clear();
                let answer = if port == NOBODY { Answer::NotListening } else { Answer::Connected };
                flow.unsent = message::encode(&answer).unwrap();
                if ![ECHO, BREAK, NOBODY].contains(&port) {
                    flow.unsent.extend(format!("this is {port}").as_bytes());
                    flow.finished = true;
                }
                self.flush(stream).await;
            }
            Some(ECHO) => {
                let bytes = std::mem::take(&mut flow.received);
                flow.unsent.extend(bytes);
                self.flush(stream).await;
            }
            Some(BREAK) => {
                let reset = self.mux.reset(stream, Reason::Cancelled);
                self.frame(reset, &[]).await;
            }
            Some(_) => {}
        }
    }

    /// Sends what there is credit for, and the end.
    async fn flush(&mut self, stream: StreamId) {
        let Some(flow) = self.streams.get_mut(&stream) else { return };
        let mut unsent = std::mem::take(&mut flow.unsent);
        let finished = flow.finished;
        while let Ok(Some(header)) = self.mux.send(stream, unsent.len()) {
            let rest = unsent.split_off(header.payload_len());
            self.frame(Some(header), &unsent).await;
            unsent = rest;
        }
        if finished && unsent.is_empty() {
            let finish = self.mux.finish(stream);
            self.frame(finish, &[]).await;
        }
        self.streams.get_mut(&stream).expect("it was there").unsent = unsent;
    }

    async fn frame(&mut self, header: Option<Header>, payload: &[u8]) {
        if let Some(header) = header {
            // The host may be gone.
            let _ = self.socket.write_all(&[&header.encode()[..], payload].concat()).await;
        }
    }
}

fn forward(local: u16, remote: u16) -> Forward {
    Forward::new(local, remote).unwrap()
}

async fn connect(binding: Binding) -> TcpStream {
    TcpStream::connect(binding.local()).await.unwrap()
}

/// All that comes until the end.
async fn hear(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut all)).await.expect("it ends").map(|_| all)
}

/// Whether an echo comes back.
async fn echoes(client: &mut TcpStream) -> bool {
    let mut back = [0; 4];
    client.write_all(b"ping").await.is_ok()
        && timeout(PATIENCE, client.read_exact(&mut back)).await.expect("something happens").is_ok()
}

/// Whether nobody listens there, or soon nobody does.
async fn refused(address: impl Into<SocketAddr>) -> bool {
    let (address, patience) = (address.into(), Instant::now() + LINGER);
    while TcpStream::connect(address).await.is_ok() {
        if Instant::now() > patience {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

/// A port that nobody is given who takes any. Who names it can listen there: this socket does not.
fn reserved() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::new(V4, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

#[tokio::test]
async fn bytes_go_through_as_they_are_and_each_end_reaches_the_other_side() {
    let (mut publisher, _ends) = publisher();
    let bindings = publisher.replace(&[forward(0, ECHO)], &[V4, V6]).unwrap();
    assert_eq!(bindings.len(), 2);
    for binding in bindings {
        assert_ne!(binding.local_port, 0);
        let bytes: Vec<u8> =
            (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let (mut reader, mut writer) = connect(binding).await.into_split();
        let sent = bytes.clone();
        tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
            // Dropped, it ends its direction.
        });
        let mut all = Vec::new();
        timeout(PATIENCE, reader.read_to_end(&mut all)).await.unwrap().unwrap();
        assert!(all == bytes);
    }
}

#[tokio::test]
async fn the_programs_end_comes_first_and_the_client_can_still_write() {
    let (mut publisher, mut ends) = publisher();
    let binding = publisher.replace(&[forward(0, NAME)], &[V4]).unwrap()[0];
    let mut client = connect(binding).await;
    assert_eq!(hear(&mut client).await.unwrap(), b"this is 9");
    client.write_all(b"more").await.unwrap();
    client.shutdown().await.unwrap();
    let end = timeout(PATIENCE, ends.recv()).await.unwrap();
    assert!(matches!(end, Some(Event::Finished { .. })), "{end:?}");
}

#[tokio::test]
async fn a_port_where_nobody_listens_gives_a_reset() {
    let (mut publisher, _ends) = publisher();
    let binding = publisher.replace(&[forward(0, NOBODY)], &[V4]).unwrap()[0];
    let error = hear(&mut connect(binding).await).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_goes_both_ways() {
    let (mut publisher, mut ends) = publisher();
    let bindings = publisher.replace(&[forward(0, BREAK), forward(0, ECHO)], &[V4]).unwrap();
    let mut client = connect(bindings[0]).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(hear(&mut client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

    let mut client = connect(bindings[1]).await;
    assert!(echoes(&mut client).await);
    client.set_zero_linger().unwrap();
    drop(client);
    let end = timeout(PATIENCE, ends.recv()).await.unwrap();
    assert!(matches!(end, Some(Event::Reset { reason: Reason::Cancelled, .. })), "{end:?}");
}

#[tokio::test]
async fn many_connections_at_once() {
    let (mut publisher, _ends) = publisher();
    let binding = publisher.replace(&[forward(0, ECHO)], &[V4]).unwrap()[0];
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(connect(binding).await);
    }
    for client in &mut clients {
        assert!(echoes(client).await);
    }
}

#[tokio::test]
async fn what_stays_published_keeps_its_connections_and_what_does_not_loses_them() {
    let (mut publisher, _ends) = publisher();
    let first = publisher.replace(&[forward(0, ECHO)], &[V4, V6]).unwrap();
    let (mut stays, mut goes) = (connect(first[0]).await, connect(first[1]).await);
    assert!(echoes(&mut stays).await && echoes(&mut goes).await);

    // By the port that it got, or by any: it is the same.
    let same = forward(first[0].local_port, ECHO);
    let second = publisher.replace(&[same, forward(0, NAME)], &[V4]).unwrap();
    assert_eq!(second[0], first[0]);
    assert!(echoes(&mut stays).await);
    assert!(!echoes(&mut goes).await);
    assert!(refused(first[1].local()).await);

    // Who names the port gets it, and who wants any gets another.
    let wishes = [forward(0, NAME), forward(second[1].local_port, NAME), same];
    let named = publisher.replace(&wishes, &[V4]).unwrap();
    assert_eq!(named[1..], [second[1], first[0]]);
    assert_ne!(named[0].local_port, named[1].local_port);
    assert!(echoes(&mut stays).await);

    // The same port can lead elsewhere without being given away in between.
    let third = publisher.replace(&[forward(first[0].local_port, NAME)], &[V4]).unwrap();
    assert_eq!(third[0].local(), first[0].local());
    assert!(!echoes(&mut stays).await);
    assert_eq!(hear(&mut connect(third[0]).await).await.unwrap(), b"this is 9");
    assert_eq!(publisher.replace(&[], &[V4]).unwrap(), []);
    assert!(refused(third[0].local()).await);
}

#[tokio::test]
async fn if_one_port_cannot_be_had_nothing_changes() {
    let (mut publisher, _ends) = publisher();
    let before = publisher.replace(&[forward(0, ECHO)], &[V4]).unwrap();
    let mut client = connect(before[0]).await;
    let others = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = others.local_addr().unwrap().port();
    let (_reservation, free) = reserved();
    let error = publisher.replace(&[forward(free, NAME), forward(taken, NAME)], &[V4]).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert_eq!(error.to_string(), format!("port {} of 127.0.0.1 is already in use", taken));
    assert!(error.hint().is_some());
    assert_eq!(publisher.bindings(), before);
    assert!(echoes(&mut client).await);
    assert!(refused((V4, free)).await, "what was bound on the way is closed");
}

#[tokio::test]
async fn the_same_port_twice_is_refused_and_on_two_families_it_is_not() {
    let (mut publisher, _ends) = publisher();
    let twice = publisher.replace(&[forward(4000, 1), forward(4000, 2)], &[V4]).unwrap_err();
    assert_eq!(twice.kind(), Kind::InvalidInput);
    assert_eq!(twice.to_string(), "port 4000 of 127.0.0.1 is to be published twice");
    assert!(publisher.replace(&[forward(4000, 1)], &[V4, V4]).is_err());

    let (_reservation, port) = reserved();
    let all = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    let bindings = publisher.replace(&[forward(port, NAME)], &all).unwrap();
    assert_eq!(bindings.len(), 2);
    assert_eq!(hear(&mut TcpStream::connect((V4, port)).await.unwrap()).await.unwrap(), b"this is 9");
}

#[tokio::test]
async fn dropping_it_closes_listeners_and_connections() {
    let (mut publisher, mut ends) = publisher();
    let binding = publisher.replace(&[forward(0, ECHO)], &[V4]).unwrap()[0];
    let mut client = connect(binding).await;
    assert!(echoes(&mut client).await);
    drop(publisher);
    assert!(matches!(timeout(PATIENCE, ends.recv()).await.unwrap(), Some(Event::Reset { .. }) | None));
    assert!(!echoes(&mut client).await);
    assert!(refused(binding.local()).await);
}

#[tokio::test]
async fn once_closed_nobody_listens_and_nobody_will() {
    let (mut one, _ends) = publisher();
    let mut other = one.ports.publisher();
    let mut bindings = one.replace(&[forward(0, ECHO), forward(0, NAME)], &[V4]).unwrap();
    bindings.extend(other.replace(&[forward(0, ECHO)], &[V4, V6]).unwrap());
    let mut client = connect(bindings[0]).await;
    assert!(echoes(&mut client).await);
    one.ports.close().await;
    for binding in bindings {
        // No other task has run in between, nor does one while this waits.
        let patience = Instant::now() + LINGER;
        while let Err(error) = std::net::TcpListener::bind(binding.local()) {
            assert!(Instant::now() < patience, "the port is not free again: {error}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let error = other.replace(&[forward(0, ECHO)], &[V4]).unwrap_err();
    assert!(matches!(error, PublishError::Ending), "{error}");
    assert!(!echoes(&mut client).await);
}

#[test]
fn a_privileged_port_is_said_to_be_one() {
    let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
    let error = PublishError::of(SocketAddr::new(V4, 80), denied());
    assert_eq!(error.to_string(), "port 80 of 127.0.0.1 needs privileges");
    assert_eq!(error.hint().unwrap(), "choose a local port from 1024 on, such as 8080");
    let error = PublishError::of(SocketAddr::new(V4, 8080), denied());
    assert!(matches!(error, PublishError::Listen { .. }), "the reason is another one");
}
