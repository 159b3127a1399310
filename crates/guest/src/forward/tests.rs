//! The forwarder between a host played by hand and real programs on loopback addresses.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use proto::class::Class;
use proto::forward::{Answer, Connect};
use proto::frame::{HEADER_LEN, Header, Reason};
use proto::message;
use proto::mux::{Event, Mux, Side};
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Flow {
    received: Vec<u8>,
    finished: bool,
    reset: Option<Reason>,
}

/// The host's end of the channel.
struct Host {
    socket: UnixStream,
    mux: Mux,
    flows: HashMap<StreamId, Flow>,
    /// Streams that nobody reads: no credit is given.
    unread: HashSet<StreamId>,
}

fn start() -> Host {
    let (ours, socket) = UnixStream::pair().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let channel = Channel::start(File::from(OwnedFd::from(ours)), |_| ()).unwrap();
    serve(&channel).unwrap();
    Host { socket, mux: Mux::new(Side::Host), flows: HashMap::new(), unread: HashSet::new() }
}

impl Host {
    /// Asks for a connection, and does not wait for the answer.
    fn ask(&mut self, port: u16) -> StreamId {
        let (id, header) = self.mux.open(Port::Forward as u32).unwrap();
        self.flows.insert(id, Flow::default());
        self.frame(header, &[]);
        self.send(id, &message::encode(&Connect { port }).unwrap());
        id
    }

    /// A connection that is made.
    fn connect(&mut self, port: u16) -> StreamId {
        let id = self.ask(port);
        assert_eq!(self.answer(id), Answer::Connected);
        id
    }

    /// Takes the answer out of what was received.
    fn answer(&mut self, id: StreamId) -> Answer {
        let length = |flow: &Flow| {
            let prefix = flow.received.first_chunk()?;
            Some(message::PREFIX_LEN + message::length(*prefix).unwrap())
        };
        self.until(|host| length(&host.flows[&id]).is_some_and(|all| host.flows[&id].received.len() >= all));
        let flow = self.flows.get_mut(&id).unwrap();
        let all: Vec<u8> = flow.received.drain(..length(flow).unwrap()).collect();
        message::decode(&all[message::PREFIX_LEN..]).unwrap()
    }

    /// Sends all of it, as credit comes.
    fn send(&mut self, id: StreamId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.mux.send(id, bytes.len()).unwrap() {
                Some(header) => {
                    let (now, then) = bytes.split_at(header.payload_len());
                    self.frame(header, now);
                    bytes = then;
                }
                None => self.receive(),
            }
        }
    }

    fn finish(&mut self, id: StreamId) {
        let header = self.mux.finish(id).unwrap();
        self.frame(header, &[]);
    }

    fn reset(&mut self, id: StreamId) {
        let header = self.mux.reset(id, Reason::Cancelled).unwrap();
        self.frame(header, &[]);
    }

    fn frame(&mut self, header: Header, payload: &[u8]) {
        self.socket.write_all(&[&header.encode(), payload].concat()).unwrap();
    }

    /// Takes one frame.
    fn receive(&mut self) {
        let mut header = [0; HEADER_LEN];
        self.socket.read_exact(&mut header).unwrap();
        let header = Header::decode(&header).unwrap();
        let mut payload = vec![0; header.payload_len()];
        self.socket.read_exact(&mut payload).unwrap();
        match self.mux.receive(header).unwrap() {
            Event::Data { stream, .. } => {
                self.flows.get_mut(&stream).unwrap().received.extend(&payload);
                if !self.unread.contains(&stream)
                    && let Some(credit) = self.mux.taken(stream, payload.len())
                {
                    self.frame(credit, &[]);
                }
            }
            Event::Finished { stream } => self.flows.get_mut(&stream).unwrap().finished = true,
            Event::Reset { stream, reason } => self.flows.get_mut(&stream).unwrap().reset = Some(reason),
            _ => {}
        }
    }

    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            self.receive();
        }
    }
}

/// A server for connections one after the other; gives its port.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // The usual 128 are fewer than some tests connect at once. What does not fit is sent again by the
    // kernel, later and later: half a minute, with bad luck.
    rustix::net::listen(&listener, 4096).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().for_each(|stream| serve(stream.unwrap())));
    port
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Bytes that differ from stream to stream and do not repeat soon.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn a_thousand_connections_at_once_get_their_own_bytes_back() {
    const COUNT: u32 = 1000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let port = server(|stream| {
        thread::Builder::new().stack_size(64 * 1024).spawn(move || echo(stream)).unwrap();
    });
    let mut host = start();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let ids: Vec<StreamId> = (0..COUNT).map(|_| host.ask(port)).collect();
    for id in &ids {
        assert_eq!(host.answer(*id), Answer::Connected);
    }
    // The server has one for each, and the tests beside this one have some.
    assert!(threads() < before + COUNT as usize + 200, "the forwarder has no threads for connections");
    let sizes = [1, 100, 5000, 70_000];
    let bytes = |number: u32| noise(number, sizes[number as usize % sizes.len()]);
    for (number, id) in (0..).zip(&ids) {
        host.send(*id, &bytes(number));
        host.finish(*id);
    }
    host.until(|host| ids.iter().all(|id| host.flows[id].finished));
    for (number, id) in (0..).zip(&ids) {
        assert!(host.flows[id].received == bytes(number), "connection {number}");
        assert_eq!(host.flows[id].reset, None);
    }
}

#[test]
fn much_goes_both_ways_at_once_byte_by_byte_the_same() {
    let port = server(|stream| {
        thread::spawn(move || echo(stream));
    });
    let mut host = start();
    let id = host.connect(port);
    let bytes = noise(7, 5_000_000);
    host.send(id, &bytes);
    host.finish(id);
    host.until(|host| host.flows[&id].finished);
    assert!(host.flows[&id].received == bytes);
}

#[test]
fn the_hosts_end_reaches_the_program_and_its_answer_comes_after_it() {
    let port = server(|mut stream| {
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        stream.write_all(all.to_uppercase().as_bytes()).unwrap();
    });
    let mut host = start();
    let id = host.connect(port);
    host.send(id, b"question");
    host.finish(id);
    host.until(|host| host.flows[&id].finished);
    assert_eq!(host.flows[&id].received, b"QUESTION");
}

#[test]
fn the_programs_end_reaches_the_host_and_it_still_reads() {
    let (sender, heard) = mpsc::channel();
    let port = server(move |mut stream| {
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        sender.send(all).unwrap();
    });
    let mut host = start();
    let id = host.connect(port);
    host.until(|host| host.flows[&id].finished);
    assert_eq!(host.flows[&id].received, b"hello");
    host.send(id, b"good");
    host.send(id, b"bye");
    host.finish(id);
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), "goodbye");
}

#[test]
fn a_reset_by_the_host_resets_the_connection() {
    let (sender, heard) = mpsc::channel();
    let port = server(move |mut stream| sender.send(stream.read(&mut [0; 8])).unwrap());
    let mut host = start();
    let id = host.connect(port);
    host.reset(id);
    let result = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_by_the_program_resets_the_stream() {
    let port = server(|mut stream| {
        stream.read_exact(&mut [0; 1]).unwrap();
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    });
    let mut host = start();
    let id = host.connect(port);
    host.send(id, b"x");
    host.until(|host| host.flows[&id].reset.is_some());
    assert!(!host.flows[&id].finished);
}

#[test]
fn a_port_where_nobody_listens_is_said_to_be_one() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut host = start();
    let id = host.ask(port);
    assert_eq!(host.answer(id), Answer::NotListening);
    host.until(|host| host.flows[&id].finished);
}

#[test]
fn a_program_that_listens_on_the_ipv6_address_only_is_found() {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.accept().unwrap().0.write_all(b"six").unwrap());
    let mut host = start();
    let id = host.connect(port);
    host.until(|host| host.flows[&id].finished);
    assert_eq!(host.flows[&id].received, b"six");
}

#[test]
fn who_reads_slowly_on_either_side_holds_up_nobody_else() {
    let port = server(|stream| {
        thread::spawn(move || echo(stream));
    });
    let (keep, kept) = mpsc::channel();
    let deaf = server(move |stream| keep.send(stream).unwrap());
    let flood = server(|mut stream| {
        thread::spawn(move || while stream.write_all(&[1; 8192]).is_ok() {});
    });
    let mut host = start();

    let unread = host.ask(flood);
    host.unread.insert(unread);
    assert_eq!(host.answer(unread), Answer::Connected);
    let quick = host.connect(port);
    // Until its buffers, the kernel's too, are full.
    let stuck = host.connect(deaf);
    let _program = kept.recv_timeout(PATIENCE).unwrap();
    let window = Class::Connection.window() as usize;
    while let Ok(Some(header)) = host.mux.send(stuck, usize::MAX) {
        let payload = vec![2; header.payload_len()];
        host.frame(header, &payload);
        // What is taken meanwhile gives credit; give it time.
        host.send(quick, b"tick");
        let ticks = host.flows[&quick].received.len() + 4;
        host.until(|host| host.flows[&quick].received.len() >= ticks);
    }
    host.send(quick, b"tock");
    host.until(|host| host.flows[&quick].received.ends_with(b"tock"));
    assert!(host.flows[&unread].received.len() <= window, "not a byte over the credit");
}

#[test]
fn a_request_that_is_none_is_answered_by_a_reset() {
    let mut host = start();
    for request in [&[0xff; 16][..], &[0; 4], &[2, 0, 0, 0, 0xff, 0xff]] {
        let (id, header) = host.mux.open(Port::Forward as u32).unwrap();
        host.flows.insert(id, Flow::default());
        host.frame(header, &[]);
        host.send(id, request);
        host.until(|host| host.flows[&id].reset.is_some());
    }
}
