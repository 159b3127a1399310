//! Bytes between a stream and a connected socket, both ways, until both ways have ended.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};

use super::connection::{End, Next};
use crate::transport::{CHUNK, HEADROOM, Read, Stream};

/// How often a connection may move bytes before it is another's turn.
const TURN: usize = 8;

/// A connected socket.
pub(super) struct Relay {
    socket: OwnedFd,
    /// It may have something to read, or its end. epoll tells when that begins, not while it lasts.
    readable: bool,
    /// It may take something.
    writable: bool,
    /// It has reported an error.
    failed: bool,
    /// Its end was passed on to the host.
    finished: bool,
    /// The host's end was passed on to it.
    shut: bool,
}

impl Relay {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, readable: true, writable: true, failed: false, finished: false, shut: false }
    }

    /// What epoll says of the socket.
    pub(super) fn socket_is(&mut self, flags: EventFlags) {
        let ended = flags.intersects(EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP);
        self.readable |= ended || flags.contains(EventFlags::IN);
        self.writable |= flags.contains(EventFlags::OUT);
        self.failed |= flags.contains(EventFlags::ERR);
    }

    /// Moves what can be moved, for one turn.
    pub(super) fn go_on(&mut self, stream: &Stream, buffer: &mut [u8]) -> Result<Next, End> {
        for _ in 0..TURN {
            let moved = self.serve_socket(stream)? | self.serve_host(stream, buffer)?;
            if self.shut && self.finished {
                return Err(End::Orderly);
            }
            if self.failed {
                return Err(End::Broken);
            }
            if !moved {
                return Ok(Next::Wait);
            }
        }
        Ok(Next::More)
    }

    /// Breaks the connection off: the program at its other end hears of it.
    pub(super) fn reset(&self) {
        let _ = sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }

    fn serve_socket(&mut self, stream: &Stream) -> Result<bool, End> {
        if self.shut || !self.writable {
            // A host that has lost interest is to be heard of even if the socket takes nothing.
            stream.check()?;
            return Ok(false);
        }
        let socket = &self.socket;
        let read = stream.try_read(|bytes| {
            match send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Err(Errno::AGAIN) => Ok(0),
                sent => sent.map_err(io::Error::from),
            }
        })?;
        match read {
            Read::Bytes(0) => self.writable = false,
            Read::Bytes(_) => return Ok(true),
            Read::Nothing => {}
            Read::End => {
                shutdown(&self.socket, Shutdown::Write)?;
                self.shut = true;
            }
        }
        Ok(false)
    }

    fn serve_host(&mut self, stream: &Stream, buffer: &mut [u8]) -> Result<bool, End> {
        if self.finished || !self.readable {
            return Ok(false);
        }
        let room = stream.room()?.min(CHUNK);
        if room == 0 {
            return Ok(false);
        }
        match recv(&self.socket, &mut buffer[HEADROOM..HEADROOM + room], RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                stream.finish()?;
                self.finished = true;
            }
            Ok((length, _)) => {
                stream.write_in_place(&mut buffer[..HEADROOM + length])?;
                return Ok(true);
            }
            Err(Errno::AGAIN) => self.readable = false,
            Err(error) => return Err(error.into()),
        }
        Ok(false)
    }
}
