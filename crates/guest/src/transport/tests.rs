//! The channel against a host that speaks frames over a socket pair, also one that misbehaves.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use proto::class::Class;
use proto::frame::Frame;
use proto::message;

use super::*;

/// Of streams to [`Port::Exec`].
const WINDOW: u32 = Class::Conversation.window();

/// The host's end, frame by frame.
struct Host {
    socket: UnixStream,
    mux: Mux,
}

fn start() -> (Channel, Host, Receiver<ChannelError>) {
    let (ours, socket) = UnixStream::pair().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (sender, ended) = mpsc::channel();
    let channel = Channel::start(File::from(OwnedFd::from(ours)), move |error| sender.send(error).unwrap());
    (channel.unwrap(), Host { socket, mux: Mux::new(Side::Host) }, ended)
}

impl Host {
    fn send(&mut self, header: Header, payload: &[u8]) {
        self.socket.write_all(&[&header.encode(), payload].concat()).unwrap();
    }

    fn open(&mut self, port: Port) -> StreamId {
        let (id, header) = self.mux.open(port as u32).unwrap();
        self.send(header, &[]);
        id
    }

    fn data(&mut self, id: StreamId, bytes: &[u8]) {
        let header = self.mux.send(id, bytes.len()).unwrap().unwrap();
        assert_eq!(header.payload_len(), bytes.len());
        self.send(header, bytes);
    }

    fn receive(&mut self) -> (Event, Vec<u8>) {
        let mut header = [0; HEADER_LEN];
        self.socket.read_exact(&mut header).unwrap();
        let header = Header::decode(&header).unwrap();
        let mut payload = vec![0; header.payload_len()];
        self.socket.read_exact(&mut payload).unwrap();
        (self.mux.receive(header).unwrap(), payload)
    }
}

#[test]
fn a_conversation_on_a_stream_of_each_side() {
    let (channel, mut host, _ended) = start();
    let boot = channel.connect(Port::Boot).unwrap();
    boot.send(&7u32).unwrap();
    let (opened, _) = host.receive();
    assert!(matches!(opened, Event::Opened { port: 5002, .. }));
    let (_, payload) = host.receive();
    assert_eq!(payload, message::encode(&7u32).unwrap());

    let listener = channel.listen(Port::Exec);
    let id = host.open(Port::Exec);
    let request = message::encode(&"hello".to_owned()).unwrap();
    // A message in two frames is one message.
    host.data(id, &request[..3]);
    host.data(id, &request[3..]);
    let stream = listener.accept().unwrap();
    assert_eq!(stream.receive::<String>().unwrap(), "hello");
    stream.finish().unwrap();
    assert_eq!(host.receive().0, Event::Finished { stream: id });
    let finish = host.mux.finish(id).unwrap();
    host.send(finish, &[]);
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    drop(stream);
    boot.send(&8u32).unwrap();
    assert!(
        matches!(host.receive().0, Event::Data { .. }),
        "nothing more of a stream that both have finished"
    );
}

#[test]
fn a_stream_to_a_port_where_nobody_listens_is_refused() {
    let (_channel, mut host, _ended) = start();
    let id = host.open(Port::Exec);
    assert_eq!(host.receive().0, Event::Reset { stream: id, reason: Reason::Refused });
}

#[test]
fn a_host_that_reads_slowly_stops_the_sender_and_nothing_else() {
    let (channel, mut host, _ended) = start();
    let listener = channel.listen(Port::Exec);
    let (slow, quick) = (host.open(Port::Exec), host.open(Port::Exec));
    let stream = listener.accept().unwrap();
    let total = WINDOW as usize * 2;
    let sender = thread::spawn(move || {
        stream.write(&[&vec![1; total / 2 + 1], &vec![2; total / 2 - 1]]).unwrap();
        stream.finish().unwrap();
    });
    let mut got = Vec::new();
    while got.len() < WINDOW as usize {
        got.extend(host.receive().1);
    }
    assert_eq!(got.len(), WINDOW as usize, "not a byte over the credit");

    let other = listener.accept().unwrap();
    other.write(&[b"still here"]).unwrap();
    assert_eq!(host.receive(), (Event::Data { stream: quick, length: 10 }, b"still here".to_vec()));

    let mut untold = got.len();
    loop {
        if let Some(credit) = host.mux.taken(slow, std::mem::take(&mut untold)) {
            host.send(credit, &[]);
        }
        let (event, payload) = host.receive();
        untold = payload.len();
        got.extend(payload);
        if event == (Event::Finished { stream: slow }) {
            break;
        }
    }
    sender.join().unwrap();
    assert_eq!(got.len(), total);
    assert_eq!(got.iter().filter(|byte| **byte == 1).count(), total / 2 + 1, "parts in order");
}

#[test]
fn what_is_written_in_place_arrives_as_it_was_whatever_its_length() {
    let (channel, mut host, _ended) = start();
    let listener = channel.listen(Port::Exec);
    let id = host.open(Port::Exec);
    let stream = listener.accept().unwrap();
    for length in [0, 1, HEADROOM, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 31 % 251) as u8).collect();
        let mut buffer = [&[0xee; HEADROOM][..], &bytes].concat();
        let sent = thread::scope(|scope| {
            let sender = scope.spawn(|| stream.write_in_place(&mut buffer));
            let mut got = Vec::new();
            while got.len() < length {
                got.extend(host.receive().1);
            }
            assert!(got == bytes, "{length}");
            sender.join().unwrap()
        });
        sent.unwrap();
        if let Some(credit) = host.mux.taken(id, length) {
            host.send(credit, &[]);
        }
    }
}

#[test]
fn a_reset_wakes_readers_and_writers_and_calls_the_hook() {
    let (channel, mut host, _ended) = start();
    let listener = channel.listen(Port::Exec);
    let id = host.open(Port::Exec);
    let stream = Arc::new(listener.accept().unwrap());
    let (sender, called) = mpsc::channel();
    stream.on_reset(move || sender.send(()).unwrap());
    let writer = Arc::clone(&stream);
    let writer = thread::spawn(move || writer.write(&[&vec![0; WINDOW as usize + 1]]));
    let mut got = 0;
    while got < WINDOW as usize {
        got += host.receive().1.len();
    }
    let reset = host.mux.reset(id, Reason::Cancelled).unwrap();
    host.send(reset, &[]);
    called.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(matches!(writer.join().unwrap(), Err(StreamError::Reset(Reason::Cancelled))));
    assert!(matches!(stream.read(&mut [0]), Err(StreamError::Reset(Reason::Cancelled))));
}

#[test]
fn input_that_nobody_reads_is_dropped_and_given_credit_for() {
    let (channel, mut host, _ended) = start();
    let listener = channel.listen(Port::Exec);
    let id = host.open(Port::Exec);
    let stream = listener.accept().unwrap();
    stream.stop_reading();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    for _ in 0..WINDOW / 1024 {
        host.data(id, &[0; 1024]);
    }
    assert!(matches!(host.receive().0, Event::Writable { .. }));
}

#[test]
fn a_dropped_stream_is_reset() {
    let (channel, mut host, _ended) = start();
    let listener = channel.listen(Port::Exec);
    let id = host.open(Port::Exec);
    drop(listener.accept().unwrap());
    assert_eq!(host.receive().0, Event::Reset { stream: id, reason: Reason::Cancelled });
}

#[test]
fn the_end_of_the_channel_reaches_everybody() {
    let (channel, mut host, ended) = start();
    let listener = channel.listen(Port::Exec);
    let stream = channel.connect(Port::Boot).unwrap();
    host.receive();
    drop(host);
    assert!(matches!(ended.recv_timeout(Duration::from_secs(10)), Ok(ChannelError::Closed)));
    assert!(matches!(stream.read(&mut [0]), Err(StreamError::Closed)));
    assert!(listener.accept().is_none());
}

#[test]
fn a_host_that_breaks_the_rules_ends_the_channel() {
    let (_channel, mut host, ended) = start();
    let even = StreamId::from_number(2).unwrap();
    host.send(Header { stream: even, frame: Frame::Open { port: 5000 } }, &[]);
    assert!(matches!(ended.recv_timeout(Duration::from_secs(10)), Ok(ChannelError::Mux(_))));

    let (_channel, mut host, ended) = start();
    host.socket.write_all(&[0xff; HEADER_LEN]).unwrap();
    assert!(matches!(ended.recv_timeout(Duration::from_secs(10)), Ok(ChannelError::Frame(_))));
}
