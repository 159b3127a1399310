//! The guest's end of the link, of either kind.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::tap::{PLAIN, Tap};
use crate::stack::inbox::Inbox;
use crate::stack::outbox::Outbox;

pub(super) enum Cable {
    Stream(UnixStream, Inbox),
    Tap(Tap, VecDeque<Vec<u8>>),
}

impl Cable {
    pub(super) fn stream(socket: UnixStream) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self::Stream(socket, Inbox::new())
    }

    pub(super) fn tap(tap: Tap) -> Self {
        Self::Tap(tap, VecDeque::new())
    }

    /// Reads some of what is there. Whether anything is.
    pub(super) fn fill(&mut self) -> bool {
        match self {
            Self::Stream(socket, inbox) => inbox.fill(socket).unwrap(),
            Self::Tap(tap, frames) => {
                let frame = tap.receive();
                let any = frame.is_some();
                frames.extend(frame);
                any
            }
        }
    }

    /// The next of what was read.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Stream(_, inbox) => inbox.next().unwrap().map(<[u8]>::to_vec),
            Self::Tap(_, frames) => frames.pop_front(),
        }
    }

    pub(super) fn flush(&mut self, out: &mut Outbox) {
        match self {
            Self::Stream(socket, _) => out.flush(socket).unwrap(),
            Self::Tap(tap, _) => out.flush_frames(|frame| tap.send(PLAIN, frame).map(|()| true)).unwrap(),
        }
    }
}

impl AsFd for Cable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(socket, _) => socket.as_fd(),
            Self::Tap(tap, _) => tap.as_fd(),
        }
    }
}
