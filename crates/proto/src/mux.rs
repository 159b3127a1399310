//! The multiplexer's rules, without its I/O: which streams are open, who may send how much.
//!
//! Both sides drive a [`Mux`]: every header that arrives goes into [`Mux::receive`], every header
//! that the other methods return is sent, in order, before anything else is done to the `Mux`.
//! Buffers and wake-ups belong to the callers (threads in the guest, tasks on the host).

use std::collections::HashMap;

use thiserror::Error;

use crate::class::Class;
use crate::credit::{CreditError, Receiving, Sending};
use crate::frame::{Frame, Header, MAX_PAYLOAD, Reason, StreamId};

/// Which side of the channel a [`Mux`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Opens odd streams.
    Host,
    /// Opens even streams.
    Guest,
}

/// What a received header means for its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The peer opened a stream to our port of this number. Reset it with [`Reason::Refused`] if
    /// nobody listens.
    Opened {
        /// The new stream.
        stream: StreamId,
        /// Port number, not yet known to be one of ours.
        port: u32,
    },
    /// `length` bytes of payload follow the header; buffer them and report them with
    /// [`Mux::taken`] when the program has read them.
    Data {
        /// Whose.
        stream: StreamId,
        /// At most [`MAX_PAYLOAD`].
        length: u32,
    },
    /// The stream can be written again.
    Writable {
        /// Which.
        stream: StreamId,
    },
    /// The peer will send no more on it.
    Finished {
        /// Which.
        stream: StreamId,
    },
    /// The stream is gone.
    Reset {
        /// Which.
        stream: StreamId,
        /// Why.
        reason: Reason,
    },
    /// The peer opened more than [`Class::streams`]: send this answer.
    Overload {
        /// A reset for the new stream.
        answer: Header,
    },
    /// For a stream that we have closed already; `length` bytes of payload are to be skipped.
    Stale {
        /// Bytes that follow.
        length: u32,
    },
}

/// The peer is not one of ours: the channel has to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MuxError {
    /// A stream number that the peer may not open, or opened before.
    #[error("peer opened stream {0}, which is not its to open")]
    BadOpen(u32),
    /// Data after its end.
    #[error("peer sent data on stream {0} after finishing it")]
    AfterFinish(u32),
    /// Credit was broken.
    #[error("stream {stream}: {source}")]
    Credit {
        /// The stream's number.
        stream: u32,
        /// How.
        source: CreditError,
    },
}

/// We have as many streams open as we may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} streams are open already")]
pub struct TooManyStreams(pub usize);

#[derive(Debug)]
struct Stream {
    class: Class,
    sending: Sending,
    receiving: Receiving,
    we_finished: bool,
    peer_finished: bool,
}

impl Stream {
    fn new(class: Class) -> Self {
        Self {
            class,
            sending: Sending::new(class.window()),
            receiving: Receiving::new(class.window()),
            we_finished: false,
            peer_finished: false,
        }
    }
}

/// The state of one side of a channel.
#[derive(Debug)]
pub struct Mux {
    streams: HashMap<StreamId, Stream>,
    /// How many of `streams` there are: of the guest and of the host, by class.
    open: [[usize; Class::COUNT]; 2],
    next_ours: u32,
    last_theirs: u32,
}

impl Mux {
    /// A new channel without streams.
    #[must_use]
    pub fn new(side: Side) -> Self {
        let (next_ours, last_theirs) = match side {
            Side::Host => (1, 0),
            Side::Guest => (2, u32::MAX),
        };
        Self { streams: HashMap::new(), open: Default::default(), next_ours, last_theirs }
    }

    /// Opens a stream to the peer's `port`.
    ///
    /// # Errors
    /// When [`Class::streams`] of ours are open.
    pub fn open(&mut self, port: u32) -> Result<(StreamId, Header), TooManyStreams> {
        let (stream, class) = (StreamId(self.next_ours), Class::of_port(port));
        if !self.insert(stream, class) {
            return Err(TooManyStreams(class.streams()));
        }
        self.next_ours += 2;
        Ok((stream, Header { stream, frame: Frame::Open { port } }))
    }

    /// Takes one header from the peer.
    ///
    /// # Errors
    /// When the peer broke the protocol; the channel cannot go on.
    pub fn receive(&mut self, header: Header) -> Result<Event, MuxError> {
        let Header { stream, frame } = header;
        if let Frame::Open { port } = frame {
            return self.opened(stream, port);
        }
        let Some(state) = self.streams.get_mut(&stream) else {
            let length = u32::try_from(header.payload_len()).unwrap_or(MAX_PAYLOAD);
            return Ok(Event::Stale { length });
        };
        let credit = |source| MuxError::Credit { stream: stream.0, source };
        Ok(match frame {
            Frame::Data { .. } | Frame::Finish if state.peer_finished => {
                return Err(MuxError::AfterFinish(stream.0));
            }
            Frame::Data { length } => {
                state.receiving.accept(length).map_err(credit)?;
                Event::Data { stream, length }
            }
            Frame::Credit { bytes } => {
                state.sending.gain(bytes).map_err(credit)?;
                Event::Writable { stream }
            }
            Frame::Finish => {
                state.peer_finished = true;
                self.forget_if_done(stream);
                Event::Finished { stream }
            }
            Frame::Reset { reason } => {
                self.remove(stream);
                Event::Reset { stream, reason }
            }
            Frame::Open { .. } => unreachable!("opened above"),
        })
    }

    /// The header of a data frame for as many of `wanted` bytes as may be sent now, at most
    /// [`MAX_PAYLOAD`]; `None` without credit. The caller sends that many bytes behind it.
    ///
    /// # Errors
    /// [`Gone`] if the stream was reset, or finished by us.
    pub fn send(&mut self, stream: StreamId, wanted: usize) -> Result<Option<Header>, Gone> {
        let state = self.streams.get_mut(&stream).filter(|state| !state.we_finished).ok_or(Gone)?;
        let wanted = u32::try_from(wanted).unwrap_or(MAX_PAYLOAD).min(MAX_PAYLOAD);
        let length = state.sending.spend(wanted);
        Ok((length > 0).then_some(Header { stream, frame: Frame::Data { length } }))
    }

    /// Bytes that may be sent on `stream` now.
    ///
    /// # Errors
    /// [`Gone`] if the stream was reset, or finished by us.
    pub fn room(&self, stream: StreamId) -> Result<usize, Gone> {
        let state = self.streams.get(&stream).filter(|state| !state.we_finished).ok_or(Gone)?;
        Ok(state.sending.left() as usize)
    }

    /// The program has read `bytes` of what arrived on `stream`.
    pub fn taken(&mut self, stream: StreamId, bytes: usize) -> Option<Header> {
        let state = self.streams.get_mut(&stream)?;
        let bytes = u32::try_from(bytes).expect("a window fits");
        let bytes = state.receiving.taken(bytes)?;
        (!state.peer_finished).then_some(Header { stream, frame: Frame::Credit { bytes } })
    }

    /// No more will be sent on `stream`.
    pub fn finish(&mut self, stream: StreamId) -> Option<Header> {
        let state = self.streams.get_mut(&stream).filter(|state| !state.we_finished)?;
        state.we_finished = true;
        self.forget_if_done(stream);
        Some(Header { stream, frame: Frame::Finish })
    }

    /// Gives `stream` up in both directions.
    pub fn reset(&mut self, stream: StreamId, reason: Reason) -> Option<Header> {
        self.remove(stream)?;
        Some(Header { stream, frame: Frame::Reset { reason } })
    }

    fn opened(&mut self, stream: StreamId, port: u32) -> Result<Event, MuxError> {
        // Their numbers only rise, by two; wrapping makes the guest's first odd peer number 1.
        if stream.0 != self.last_theirs.wrapping_add(2) {
            return Err(MuxError::BadOpen(stream.0));
        }
        self.last_theirs = stream.0;
        if !self.insert(stream, Class::of_port(port)) {
            let frame = Frame::Reset { reason: Reason::TooManyStreams };
            return Ok(Event::Overload { answer: Header { stream, frame } });
        }
        Ok(Event::Opened { stream, port })
    }

    /// Adds a stream, if the side that has opened it may open one more of its class.
    fn insert(&mut self, stream: StreamId, class: Class) -> bool {
        let open = self.count(stream, class);
        if *open >= class.streams() {
            return false;
        }
        *open += 1;
        self.streams.insert(stream, Stream::new(class));
        true
    }

    fn remove(&mut self, stream: StreamId) -> Option<()> {
        let Stream { class, .. } = self.streams.remove(&stream)?;
        *self.count(stream, class) -= 1;
        Some(())
    }

    /// How many streams of `class` are open from the side that opens numbers like `like`.
    fn count(&mut self, like: StreamId, class: Class) -> &mut usize {
        &mut self.open[usize::from(!like.0.is_multiple_of(2))][class as usize]
    }

    fn forget_if_done(&mut self, stream: StreamId) {
        if self.streams.get(&stream).is_some_and(|state| state.we_finished && state.peer_finished) {
            self.remove(stream);
        }
    }
}

/// The stream was reset or already finished by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the stream is closed")]
pub struct Gone;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const EXEC: u32 = crate::Port::Exec as u32;
    const FORWARD: u32 = crate::Port::Forward as u32;

    fn pair() -> (Mux, Mux) {
        (Mux::new(Side::Host), Mux::new(Side::Guest))
    }

    #[test]
    fn a_stream_lives_from_open_to_both_ends() {
        let (mut host, mut guest) = pair();
        let (stream, open) = host.open(5000).unwrap();
        assert_eq!(guest.receive(open), Ok(Event::Opened { stream, port: 5000 }));
        let data = host.send(stream, 10).unwrap().unwrap();
        assert_eq!(guest.receive(data), Ok(Event::Data { stream, length: 10 }));
        assert_eq!(guest.receive(host.finish(stream).unwrap()), Ok(Event::Finished { stream }));
        assert_eq!(host.send(stream, 1), Err(Gone));
        let answer = guest.send(stream, 1 << 20).unwrap().unwrap();
        assert_eq!(host.receive(answer), Ok(Event::Data { stream, length: MAX_PAYLOAD }));
        assert_eq!(host.receive(guest.finish(stream).unwrap()), Ok(Event::Finished { stream }));
        assert!(host.streams.is_empty() && guest.streams.is_empty());
    }

    #[test]
    fn late_frames_of_a_reset_stream_are_skipped() {
        let (mut host, mut guest) = pair();
        let (stream, open) = host.open(5000).unwrap();
        guest.receive(open).unwrap();
        let late = guest.send(stream, 100).unwrap().unwrap();
        let reset = host.reset(stream, Reason::Cancelled).unwrap();
        assert_eq!(host.receive(late), Ok(Event::Stale { length: 100 }));
        assert_eq!(guest.receive(reset), Ok(Event::Reset { stream, reason: Reason::Cancelled }));
        assert_eq!(guest.send(stream, 1), Err(Gone));
    }

    #[test]
    fn a_peer_cannot_open_our_numbers_or_reuse_its_own() {
        let (mut host, _) = pair();
        let open = |number| Header { stream: StreamId(number), frame: Frame::Open { port: 1 } };
        assert_eq!(host.receive(open(1)), Err(MuxError::BadOpen(1)));
        assert!(host.receive(open(2)).is_ok());
        assert_eq!(host.receive(open(2)), Err(MuxError::BadOpen(2)));
        assert_eq!(host.receive(open(6)), Err(MuxError::BadOpen(6)));
        assert_eq!(Mux::new(Side::Guest).receive(open(2)), Err(MuxError::BadOpen(2)));
    }

    #[test]
    fn too_many_streams_are_turned_away_on_both_sides() {
        for port in [EXEC, FORWARD] {
            let (mut host, mut guest) = pair();
            let most = Class::of_port(port).streams();
            for _ in 0..most {
                let (_, open) = host.open(port).unwrap();
                assert!(matches!(guest.receive(open), Ok(Event::Opened { .. })));
            }
            assert_eq!(host.open(port), Err(TooManyStreams(most)));
            let stream = StreamId(2 * u32::try_from(most).unwrap() + 1);
            let over = Header { stream, frame: Frame::Open { port } };
            assert!(matches!(guest.receive(over), Ok(Event::Overload { .. })));
            assert!(guest.open(5002).is_ok(), "each side has its own allowance");
        }
    }

    #[test]
    fn connections_cannot_use_up_what_commands_need() {
        let (mut host, mut guest) = pair();
        let mut last = None;
        while let Ok((stream, open)) = host.open(FORWARD) {
            assert!(matches!(guest.receive(open), Ok(Event::Opened { .. })));
            last = Some(stream);
        }
        let (_, open) = host.open(EXEC).unwrap();
        assert!(matches!(guest.receive(open), Ok(Event::Opened { .. })));
        // One that ends makes room for one.
        let reset = host.reset(last.unwrap(), Reason::Cancelled).unwrap();
        guest.receive(reset).unwrap();
        let (_, open) = host.open(FORWARD).unwrap();
        assert!(matches!(guest.receive(open), Ok(Event::Opened { .. })));
        assert!(host.open(FORWARD).is_err());
    }

    #[test]
    fn a_connection_has_a_window_of_its_class() {
        let (mut host, mut guest) = pair();
        let (stream, open) = host.open(FORWARD).unwrap();
        guest.receive(open).unwrap();
        let mut sent = 0;
        while let Some(header) = guest.send(stream, usize::MAX).unwrap() {
            sent += header.payload_len();
            host.receive(header).unwrap();
        }
        assert_eq!(sent, Class::Connection.window() as usize);
        assert_eq!(guest.room(stream), Ok(0));
        let over = Header { stream, frame: Frame::Data { length: 1 } };
        assert!(matches!(host.receive(over), Err(MuxError::Credit { .. })));
    }

    proptest! {
        /// Two honest sides with any interleaving of sending, delivery and reading: every byte
        /// arrives, nothing is ever buffered over the window, and no stream starves.
        #[test]
        fn honest_sides_never_fail_or_starve(
            port in prop_oneof![Just(EXEC), Just(FORWARD)],
            steps in prop::collection::vec((0u8..5, 1usize..150_000), 1..400),
        ) {
            let window = Class::of_port(port).window() as usize;
            let (mut host, mut guest) = pair();
            let (stream, open) = host.open(port).unwrap();
            let mut to_guest = VecDeque::from([open]);
            let mut to_host = VecDeque::new();
            let (mut sent, mut read, mut buffered) = (0usize, 0usize, 0usize);
            let deliver = |wire: &mut VecDeque<Header>, mux: &mut Mux, buffered: &mut usize| -> Result<(), TestCaseError> {
                if let Some(header) = wire.pop_front()
                    && let Event::Data { length, .. } = mux.receive(header).unwrap()
                {
                    *buffered += length as usize;
                }
                prop_assert!(*buffered <= window);
                Ok(())
            };
            let drain = steps.iter().copied().chain((0..4000).map(|step| ((step % 4) as u8, 1 << 20)));
            for (action, amount) in drain {
                match action {
                    0 => if let Some(header) = host.send(stream, amount).unwrap() {
                        sent += header.payload_len();
                        to_guest.push_back(header);
                    },
                    1 => deliver(&mut to_guest, &mut guest, &mut buffered)?,
                    2 => {
                        let taken = amount.min(buffered);
                        buffered -= taken;
                        read += taken;
                        to_host.extend(guest.taken(stream, taken));
                    }
                    _ => { let mut none = 0; deliver(&mut to_host, &mut host, &mut none)?; }
                }
            }
            prop_assert!(sent > window * 4, "a reader that reads keeps the writer going");
            prop_assert!(sent - read <= window);
        }

        /// Any headers at all: an error or an event, and never more buffered than promised.
        #[test]
        fn hostile_headers_never_panic(wires in prop::collection::vec((0u32..9, 1u8..6, 0u32..70_000), 1..200)) {
            let mut host = Mux::new(Side::Host);
            let (ours, _) = host.open(5000).unwrap();
            host.open(FORWARD).unwrap();
            host.finish(ours);
            for (stream, kind, argument) in wires {
                let mut wire = [0; crate::frame::HEADER_LEN];
                wire[..4].copy_from_slice(&stream.to_le_bytes());
                wire[4] = kind;
                wire[8..].copy_from_slice(&argument.to_le_bytes());
                let Ok(header) = Header::decode(&wire) else { continue };
                if host.receive(header).is_err() { break; }
            }
        }
    }
}
