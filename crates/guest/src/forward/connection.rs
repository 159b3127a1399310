//! One forwarded connection, from the host's request to both ends.

use std::io;
use std::os::fd::OwnedFd;

use proto::forward::{Answer, Connect};
use proto::message::{self, PREFIX_LEN};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use super::attempt::Attempt;
use super::relay::Relay;
use crate::command::words;
use crate::transport::{CHUNK, HEADROOM, Read, Stream, StreamError};

/// The longest request without its prefix, bytes; an honest one has at most three.
const MAX_REQUEST: usize = 16;

/// What the connections of one thread share.
pub(super) struct Workspace {
    pub(super) epoll: OwnedFd,
    buffer: Vec<u8>,
}

impl Workspace {
    pub(super) fn new(epoll: OwnedFd) -> Self {
        Self { epoll, buffer: vec![0; HEADROOM + CHUNK] }
    }
}

/// What a connection needs next.
pub(super) enum Next {
    /// That something happens to its socket or its stream.
    Wait,
    /// Another turn.
    More,
    /// To be dropped.
    Over,
}

/// Why a connection is over.
pub(super) enum End {
    /// Both sides have ended it, or it never was.
    Orderly,
    /// It is broken off.
    Broken,
}

impl From<StreamError> for End {
    fn from(_: StreamError) -> Self {
        Self::Broken
    }
}

impl From<Errno> for End {
    fn from(_: Errno) -> Self {
        Self::Broken
    }
}

/// A stream, and the socket that belongs to it.
pub(super) struct Connection {
    stream: Stream,
    phase: Phase,
}

enum Phase {
    /// So much of the request is here.
    Asked(Vec<u8>),
    Connecting(Attempt),
    Connected(Relay),
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, phase: Phase::Asked(Vec::new()) }
    }

    /// What epoll says of the socket.
    pub(super) fn socket_is(&mut self, flags: EventFlags) {
        match &mut self.phase {
            Phase::Asked(_) => {}
            Phase::Connecting(attempt) => attempt.settle(),
            Phase::Connected(relay) => relay.socket_is(flags),
        }
    }

    /// Does what can be done now.
    pub(super) fn go_on(&mut self, workspace: &mut Workspace) -> Next {
        match self.try_go_on(workspace) {
            Ok(next) => next,
            Err(End::Orderly) => Next::Over,
            Err(End::Broken) => {
                // The stream is reset by being dropped.
                if let Phase::Connected(relay) = &self.phase {
                    relay.reset();
                }
                Next::Over
            }
        }
    }

    fn try_go_on(&mut self, workspace: &mut Workspace) -> Result<Next, End> {
        loop {
            match &mut self.phase {
                Phase::Asked(request) => match read_request(&self.stream, request)? {
                    Some(Connect { port }) => self.phase = Phase::Connecting(Attempt::new(port)),
                    None => return Ok(Next::Wait),
                },
                Phase::Connecting(attempt) => {
                    // Whether the host is still interested.
                    self.stream.check()?;
                    let id = u64::from(self.stream.id().number());
                    match attempt.go_on(|socket| watch(&workspace.epoll, socket, id)) {
                        Some(Ok(socket)) => {
                            self.stream.send(&Answer::Connected)?;
                            self.phase = Phase::Connected(Relay::new(socket));
                        }
                        Some(Err(error)) => {
                            self.stream.send(&refusal(error))?;
                            self.stream.finish()?;
                            return Err(End::Orderly);
                        }
                        None => return Ok(Next::Wait),
                    }
                }
                Phase::Connected(relay) => return relay.go_on(&self.stream, &mut workspace.buffer),
            }
        }
    }
}

/// The host's request, once all of it is in `request`.
fn read_request(stream: &Stream, request: &mut Vec<u8>) -> Result<Option<Connect>, End> {
    loop {
        let length = match request.first_chunk::<PREFIX_LEN>() {
            None => PREFIX_LEN,
            Some(prefix) => match message::length(*prefix) {
                Ok(length @ 1..=MAX_REQUEST) => PREFIX_LEN + length,
                _ => return Err(End::Broken),
            },
        };
        if request.len() == length && length > PREFIX_LEN {
            return message::decode(&request[PREFIX_LEN..]).map(Some).map_err(|_| End::Broken);
        }
        let missing = length - request.len();
        let read = stream.try_read(|bytes| {
            let taken = missing.min(bytes.len());
            request.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        })?;
        match read {
            Read::Bytes(1..) => {}
            Read::Nothing => return Ok(None),
            // An end before the request.
            Read::Bytes(0) | Read::End => return Err(End::Broken),
        }
    }
}

/// Makes epoll tell of everything that begins on `socket`.
fn watch(epoll: &OwnedFd, socket: &OwnedFd, id: u64) -> Result<(), Errno> {
    let everything = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    epoll::add(epoll, socket, EventData::new_u64(id), everything)
}

fn refusal(error: Errno) -> Answer {
    match error {
        Errno::CONNREFUSED => Answer::NotListening,
        error => Answer::Failed { reason: words(&io::Error::from(error)) },
    }
}
