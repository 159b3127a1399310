//! The channel against a guest played by hand, honest and hostile.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::Duration;

use proptest::prelude::*;
use proto::class::Class;
use proto::frame::{Frame, HEADER_LEN, Header, MAX_PAYLOAD, Reason, StreamId};
use proto::mux::{Event, Mux, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::time::timeout;

use super::state::{MAX_WAITING, QUEUE_LIMIT};
use super::*;

/// Of streams to [`Port::Exec`] and [`Port::Boot`].
const WINDOW: u32 = Class::Conversation.window();
const MAX_STREAMS: usize = Class::Conversation.streams();

/// The guest's end: sends and receives single frames.
struct Guest {
    socket: UnixStream,
    mux: Mux,
}

fn pair() -> (Channel, Guest) {
    let (host, guest) = UnixStream::pair().unwrap();
    (Channel::new(host, &[Port::Boot]), Guest { socket: guest, mux: Mux::new(Side::Guest) })
}

impl Guest {
    async fn send(&mut self, header: Header, payload: &[u8]) {
        self.socket.write_all(&[&header.encode()[..], payload].concat()).await.unwrap();
    }

    async fn open(&mut self, port: u32) -> StreamId {
        let (stream, header) = self.mux.open(port).unwrap();
        self.send(header, &[]).await;
        stream
    }

    async fn data(&mut self, stream: StreamId, bytes: &[u8]) {
        let header = self.mux.send(stream, bytes.len()).unwrap().unwrap();
        assert_eq!(header.payload_len(), bytes.len());
        self.send(header, bytes).await;
    }

    async fn frame(&mut self) -> (Header, Vec<u8>) {
        let mut header = [0; HEADER_LEN];
        timeout(Duration::from_secs(10), self.socket.read_exact(&mut header)).await.unwrap().unwrap();
        let header = Header::decode(&header).unwrap();
        let mut payload = vec![0; header.payload_len()];
        self.socket.read_exact(&mut payload).await.unwrap();
        (header, payload)
    }

    async fn event(&mut self) -> (Event, Vec<u8>) {
        let (header, payload) = self.frame().await;
        (self.mux.receive(header).unwrap(), payload)
    }
}

#[tokio::test]
async fn a_stream_goes_both_ways_and_half_closes() {
    let (channel, mut guest) = pair();
    let mut stream = channel.open(Port::Exec).unwrap();
    stream.write_all(b"request").await.unwrap();
    stream.shutdown().await.unwrap();
    let (Event::Opened { stream: id, port: 5000 }, _) = guest.event().await else { panic!() };
    assert_eq!(guest.event().await.1, b"request");
    assert_eq!(guest.event().await.0, Event::Finished { stream: id });
    assert_eq!(stream.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    guest.data(id, b"answer").await;
    let finish = guest.mux.finish(id).unwrap();
    guest.send(finish, &[]).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
    drop(stream);
    // Both directions were at their end, so there is nothing to reset: the next frame is this.
    let _next = channel.open(Port::Exec).unwrap();
    assert!(matches!(guest.event().await.0, Event::Opened { .. }));
}

#[tokio::test]
async fn the_guest_reaches_listened_ports_only() {
    let (channel, mut guest) = pair();
    let refused = guest.open(Port::Exec as u32).await;
    let boot = guest.open(Port::Boot as u32).await;
    guest.data(boot, b"hello").await;
    assert_eq!(guest.event().await.0, Event::Reset { stream: refused, reason: Reason::Refused });
    let mut stream = channel.accept(Port::Boot).await.unwrap();
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    assert!(timeout(Duration::from_millis(20), channel.accept(Port::Boot)).await.is_err());
}

#[tokio::test]
async fn dropping_a_stream_tells_the_guest() {
    let (channel, mut guest) = pair();
    drop(channel.open(Port::Exec).unwrap());
    let (Event::Opened { stream, .. }, _) = guest.event().await else { panic!() };
    assert_eq!(guest.event().await.0, Event::Reset { stream, reason: Reason::Cancelled });
}

#[tokio::test]
async fn a_reset_by_the_guest_fails_reads_and_writes() {
    let (channel, mut guest) = pair();
    let mut stream = channel.open(Port::Exec).unwrap();
    let (Event::Opened { stream: id, .. }, _) = guest.event().await else { panic!() };
    let reset = guest.mux.reset(id, Reason::Refused).unwrap();
    guest.send(reset, &[]).await;
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(stream.write_u8(1).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn what_arrived_before_the_end_is_read_before_the_error() {
    let (channel, mut guest) = pair();
    let mut stream = channel.open(Port::Exec).unwrap();
    let (Event::Opened { stream: id, .. }, _) = guest.event().await else { panic!() };
    guest.data(id, b"last words").await;
    drop(guest);
    assert!(matches!(channel.ended().await, ChannelError::Gone));
    let mut words = [0; 10];
    stream.read_exact(&mut words).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert!(matches!(channel.open(Port::Exec), Err(ChannelError::Gone)));
    assert!(matches!(channel.accept(Port::Boot).await, Err(ChannelError::Gone)));
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_else() {
    let (channel, mut guest) = pair();
    let slow = guest.open(Port::Boot as u32).await;
    let fast = guest.open(Port::Boot as u32).await;
    let slow_end = channel.accept(Port::Boot).await.unwrap();
    let mut fast_end = channel.accept(Port::Boot).await.unwrap();
    let block = vec![7; MAX_PAYLOAD as usize];
    for _ in 0..WINDOW / MAX_PAYLOAD {
        guest.data(slow, &block).await;
    }
    assert_eq!(guest.mux.send(slow, 1), Ok(None), "its credit is spent");
    guest.data(fast, b"!").await;
    assert_eq!(fast_end.read_u8().await.unwrap(), b'!');
    drop(slow_end);
}

#[tokio::test]
async fn a_guest_that_ignores_credit_ends_the_channel_not_us() {
    let (channel, mut guest) = pair();
    let mut stream = channel.open(Port::Exec).unwrap();
    let (Event::Opened { stream: id, .. }, _) = guest.event().await else { panic!() };
    let flood = Header { stream: id, frame: Frame::Data { length: MAX_PAYLOAD } };
    let block = vec![0; MAX_PAYLOAD as usize];
    for _ in 0..=WINDOW / MAX_PAYLOAD {
        guest.send(flood, &block).await;
    }
    let end = timeout(Duration::from_secs(10), channel.ended()).await.unwrap();
    assert!(matches!(end, ChannelError::Mux(MuxError::Credit { .. })), "{end:?}");
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).await.unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(rest.len(), WINDOW as usize);
}

#[tokio::test]
async fn streams_opened_and_reset_for_ever_take_no_memory() {
    let (channel, mut guest) = pair();
    for _ in 0..4 * MAX_STREAMS {
        let stream = guest.open(Port::Boot as u32).await;
        guest.data(stream, b"garbage").await;
        let reset = guest.mux.reset(stream, Reason::Cancelled).unwrap();
        guest.send(reset, &[]).await;
    }
    let last = guest.open(Port::Boot as u32).await;
    guest.data(last, b"x").await;
    assert_eq!(channel.accept(Port::Boot).await.unwrap().read_u8().await.unwrap(), b'x');
    assert!(channel.owner.shared.lock().flows.is_empty());
}

#[tokio::test]
async fn streams_that_nobody_accepts_are_few() {
    let (channel, mut guest) = pair();
    for _ in 0..MAX_WAITING {
        guest.open(Port::Boot as u32).await;
    }
    let over = guest.open(Port::Boot as u32).await;
    assert_eq!(guest.event().await.0, Event::Reset { stream: over, reason: Reason::TooManyStreams });
    let _accepted = channel.accept(Port::Boot).await.unwrap();
    let next = guest.open(Port::Boot as u32).await;
    guest.data(next, b"x").await;
    for _ in 1..MAX_WAITING {
        channel.accept(Port::Boot).await.unwrap();
    }
    assert_eq!(channel.accept(Port::Boot).await.unwrap().read_u8().await.unwrap(), b'x');
}

/// Frames without end that open streams to a port that nobody listens on: each asks for an answer.
fn questions() -> impl Iterator<Item = [u8; HEADER_LEN]> {
    let mut mux = Mux::new(Side::Guest);
    std::iter::repeat_with(move || {
        let (stream, open) = mux.open(Port::Exec as u32).unwrap();
        mux.reset(stream, Reason::Cancelled);
        open.encode()
    })
}

async fn flood(mut socket: OwnedWriteHalf) {
    for question in questions() {
        if socket.write_all(&question).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_guest_that_does_not_read_is_not_listened_to() {
    let (channel, guest) = pair();
    let (_unread, socket) = guest.socket.into_split();
    let flood = tokio::spawn(flood(socket));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let queued = channel.owner.shared.lock().queued();
    assert!(queued < 3 * QUEUE_LIMIT, "{queued}");
    flood.abort();
}

#[tokio::test]
async fn the_end_of_a_guest_that_floods_and_does_not_read_is_seen() {
    let (channel, guest) = pair();
    let mut writer = channel.open(Port::Exec).unwrap();
    let (unread, socket) = guest.socket.into_split();
    let flood = tokio::spawn(flood(socket));
    let wait = Duration::from_secs(10);
    // Until it is not listened to.
    let full = async {
        while channel.owner.shared.lock().queued() < 2 * QUEUE_LIMIT {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(wait, full).await.unwrap();
    let mut accepted = tokio::spawn({
        let channel = channel.clone();
        async move { channel.accept(Port::Boot).await }
    });
    let mut written = tokio::spawn(async move { writer.write_all(&vec![0; 4 * WINDOW as usize]).await });
    assert!(timeout(Duration::from_millis(20), &mut accepted).await.is_err());
    assert!(timeout(Duration::from_millis(20), &mut written).await.is_err());
    flood.abort();
    drop(unread);
    let end = timeout(wait, channel.ended()).await.unwrap();
    assert!(matches!(end, ChannelError::Gone), "{end:?}");
    assert!(matches!(timeout(wait, accepted).await.unwrap().unwrap(), Err(ChannelError::Gone)));
    let error = timeout(wait, written).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_guest_that_can_read_no_more_is_listened_to_until_its_end() {
    let (channel, guest) = pair();
    let socket = guest.socket.into_std().unwrap();
    socket.shutdown(Shutdown::Read).unwrap();
    let mut socket = UnixStream::from_std(socket).unwrap();
    // More than there is room for answers.
    let flood: Vec<u8> = questions().take(100_000).flatten().collect();
    let wait = Duration::from_secs(10);
    timeout(wait, socket.write_all(&flood)).await.unwrap().unwrap();
    drop(socket);
    assert!(matches!(timeout(wait, channel.ended()).await.unwrap(), ChannelError::Gone));
}

#[tokio::test]
async fn a_writer_without_a_reader_waits_in_bounded_memory() {
    let (channel, mut guest) = pair();
    let mut streams: Vec<_> = (0..MAX_STREAMS).map(|_| channel.open(Port::Exec).unwrap()).collect();
    assert!(matches!(channel.open(Port::Exec), Err(ChannelError::TooManyStreams(_))));
    let block = vec![0; 4 * WINDOW as usize];
    for stream in &mut streams {
        assert!(timeout(Duration::from_millis(5), stream.write_all(&block)).await.is_err());
    }
    let queued = channel.owner.shared.lock().queued();
    assert!(queued < 2 * QUEUE_LIMIT, "{queued}");
    // Once the guest reads, everybody goes on.
    let last = streams.pop().unwrap();
    drop(streams);
    let mut open = 0;
    while let (header, _) = guest.frame().await
        && open < MAX_STREAMS
    {
        open += usize::from(matches!(header.frame, Frame::Open { .. }));
    }
    drop(last);
}

#[tokio::test]
async fn bytes_are_taken_as_far_as_the_taker_can() {
    let (channel, mut guest) = pair();
    let stream = channel.open(Port::Forward).unwrap();
    let (Event::Opened { stream: id, .. }, _) = guest.event().await else { panic!() };
    assert_eq!(stream.try_take(|_| Ok(1)).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(timeout(Duration::from_millis(20), stream.readable()).await.is_err());
    guest.data(id, b"abcdef").await;
    stream.readable().await;
    let refused = stream.try_take(|_| Err(ErrorKind::OutOfMemory.into()));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::OutOfMemory);
    let mut got = Vec::<u8>::new();
    for _ in 0..2 {
        let taken = stream.try_take(|bytes| {
            got.extend(&bytes[..3]);
            Ok(3)
        });
        assert_eq!(taken.unwrap(), Some(3));
    }
    assert_eq!(got, b"abcdef");
    stream.send(b"answer").await.unwrap();
    assert_eq!(guest.event().await.1, b"answer");
    stream.finish();
    assert_eq!(guest.event().await.0, Event::Finished { stream: id });
    let finish = guest.mux.finish(id).unwrap();
    guest.send(finish, &[]).await;
    stream.readable().await;
    assert_eq!(stream.try_take(|_| Ok(1)).unwrap(), None);
}

#[tokio::test]
async fn a_connection_gets_a_small_window_and_credit_as_it_is_taken() {
    let (channel, mut guest) = pair();
    let stream = channel.open(Port::Forward).unwrap();
    let (Event::Opened { stream: id, .. }, _) = guest.event().await else { panic!() };
    let window = Class::Connection.window() as usize;
    let block = vec![1; MAX_PAYLOAD as usize];
    let mut sent = 0;
    while sent < 3 * window {
        while guest.mux.room(id).unwrap() >= block.len() {
            guest.data(id, &block).await;
            sent += block.len();
        }
        stream.readable().await;
        while guest.mux.room(id).unwrap() < block.len() {
            stream.readable().await;
            stream.try_take(|bytes| Ok(bytes.len())).unwrap();
            while let Ok(event) = timeout(Duration::from_millis(5), guest.event()).await {
                assert_eq!(event.0, Event::Writable { stream: id });
            }
        }
    }
    let flood = Header { stream: id, frame: Frame::Data { length: MAX_PAYLOAD } };
    for _ in 0..=window / block.len() {
        guest.send(flood, &block).await;
    }
    assert!(matches!(channel.ended().await, ChannelError::Mux(MuxError::Credit { .. })));
}

/// Sends every stream's bytes back, in pieces as they come, until all have ended.
async fn echo(mut guest: Guest, streams: usize, fragment: usize) {
    let mut ended = 0;
    let mut outgoing: Vec<(StreamId, Vec<u8>, bool)> = Vec::new();
    while ended < streams {
        let (event, payload) = guest.event().await;
        match event {
            Event::Opened { stream, .. } => outgoing.push((stream, Vec::new(), false)),
            Event::Data { stream, .. } => {
                outgoing.iter_mut().find(|out| out.0 == stream).unwrap().1.extend(payload);
            }
            Event::Finished { stream } => outgoing.iter_mut().find(|out| out.0 == stream).unwrap().2 = true,
            _ => {}
        }
        let mut wire = Vec::new();
        for (stream, bytes, finished) in &mut outgoing {
            while let Ok(Some(header)) = guest.mux.send(*stream, bytes.len()) {
                let sent: Vec<u8> = bytes.drain(..header.payload_len()).collect();
                wire.extend(header.encode());
                let credit = guest.mux.taken(*stream, sent.len());
                wire.extend(sent);
                wire.extend(credit.iter().flat_map(|credit| credit.encode()));
            }
            if bytes.is_empty() && *finished {
                *finished = false;
                ended += 1;
                wire.extend(guest.mux.finish(*stream).unwrap().encode());
            }
        }
        for piece in wire.chunks(fragment) {
            guest.socket.write_all(piece).await.unwrap();
        }
    }
    // The host closes first: it may still be reading.
    let mut rest = Vec::new();
    guest.socket.read_to_end(&mut rest).await.unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Many streams at once, any sizes of writes, reads and fragments: every stream gets its own
    /// bytes back, in order, whatever else is going on.
    #[test]
    fn every_stream_gets_its_own_bytes_back(
        sizes in prop::collection::vec(0usize..900_000, 1..6),
        write in 1usize..200_000,
        read in 1usize..100_000,
        fragment in 1usize..70_000,
    ) {
        runtime().block_on(async {
            let (channel, guest) = pair();
            // Tiny fragments are a system call each: some are enough.
            let fragment = fragment.max(sizes.iter().sum::<usize>() / 20_000).max(1);
            let peer = tokio::spawn(echo(guest, sizes.len(), fragment));
            let tasks: Vec<_> = sizes.into_iter().enumerate().map(|(number, size)| {
                let mut stream = channel.open(Port::Exec).unwrap();
                tokio::spawn(async move {
                    let bytes: Vec<u8> = (0..size).map(|at| (at.wrapping_mul(31) ^ number) as u8).collect();
                    let (mut reader, mut writer) = tokio::io::split(&mut stream);
                    let send = async {
                        for piece in bytes.chunks(write) {
                            writer.write_all(piece).await.unwrap();
                        }
                        writer.shutdown().await.unwrap();
                    };
                    let receive = async {
                        let (mut all, mut buffer) = (Vec::new(), vec![0; read]);
                        loop {
                            match reader.read(&mut buffer).await.unwrap() {
                                0 => return all,
                                length => all.extend_from_slice(&buffer[..length]),
                            }
                        }
                    };
                    let ((), received) = tokio::join!(send, receive);
                    assert!(received == bytes, "stream {number}: {} of {size} bytes", received.len());
                })
            }).collect();
            for task in tasks {
                timeout(Duration::from_secs(60), task).await.unwrap().unwrap();
            }
            drop(channel);
            timeout(Duration::from_secs(60), peer).await.unwrap().unwrap();
        });
    }

    /// Any bytes at all: the channel lives or ends with an error, and nobody waits for ever.
    #[test]
    fn hostile_bytes_end_the_channel_or_are_ignored(
        noise in prop::collection::vec((0u32..6, 0u8..7, 0u32..80_000, 0usize..70_000), 1..60),
        tail in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        runtime().block_on(async {
            let (channel, mut guest) = pair();
            let mut stream = channel.open(Port::Exec).unwrap();
            let mut wire = Vec::new();
            for (stream, kind, argument, payload) in noise {
                wire.extend(stream.to_le_bytes());
                wire.extend([kind, 0, 0, 0]);
                wire.extend(argument.to_le_bytes());
                wire.resize(wire.len() + payload.min(argument as usize), 0);
            }
            wire.extend(tail);
            // It may be closed in our face.
            let _ = guest.socket.write_all(&wire).await;
            drop(guest);
            let wait = Duration::from_secs(30);
            timeout(wait, channel.ended()).await.unwrap();
            let mut rest = Vec::new();
            let _ = timeout(wait, stream.read_to_end(&mut rest)).await.unwrap();
            assert!(rest.len() <= WINDOW as usize);
            assert!(timeout(wait, stream.write(b"x")).await.unwrap().is_err());
        });
    }
}
