//! A stream of frames, each after its length.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::PollFlags;
use smoltcp::wire::ETHERNET_HEADER_LEN;

use super::{LinkError, Take, Wire, either};
use crate::stack::filter::Dropped;
use crate::stack::inbox::Inbox;
use crate::stack::outbox::Outbox;

/// Bytes of frames that the kernel holds for each direction of the link, if it lets us choose.
const LINK_BUFFER: usize = 1024 * 1024;

pub(super) struct Stream {
    socket: UnixStream,
    inbox: Inbox,
    /// Bytes of the longest frame that the guest may send.
    longest: usize,
}

impl Stream {
    pub(super) fn new(socket: UnixStream, mtu: u16) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // As much as the kernel's limit allows; it works with any.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, LINK_BUFFER);
        Ok(Self { socket, inbox: Inbox::new(), longest: ETHERNET_HEADER_LEN + usize::from(mtu) })
    }
}

impl Wire for Stream {
    /// At most one buffer.
    fn receive(&mut self, take: &mut Take<'_>) -> Result<bool, LinkError> {
        if !self.inbox.fill(&self.socket)? {
            return Ok(false);
        }
        while let Some(frame) = self.inbox.next()? {
            take(if frame.len() <= self.longest { Ok(frame) } else { Err(Dropped::Malformed) });
        }
        Ok(true)
    }

    fn send(&mut self, out: &mut Outbox) -> Result<(), LinkError> {
        Ok(out.flush(&self.socket)?)
    }

    fn wait(&self, waiting: bool, alarm: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<(), LinkError> {
        let interest = if waiting { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        // Reading tells whether it is closed.
        either(self.socket.as_fd(), interest, alarm, timeout)?;
        Ok(())
    }
}
