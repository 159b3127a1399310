//! A packet socket on the TAP device of the VMM. The guest leaves to us what it would leave to a network
//! card: checksums, and to cut what is longer than its MTU, which is no longer than an IP packet can be and
//! taken as it is.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use smoltcp::wire::ETHERNET_HEADER_LEN;
use sys::packet::{Batch, PacketSocket, Received};

use super::{LinkError, Take, Wire, either};
use crate::stack::checksum;
use crate::stack::filter::Dropped;
use crate::stack::outbox::Outbox;

/// Frames that are taken in before what follows from them is done: a part of the ring, so that the guest
/// hears of them, and goes on, while the rest is looked at.
const TURN: usize = 16;
/// How long to wait when the device takes nothing, since nothing says when it does again. It is then full of
/// frames that the guest has yet to read, more than it reads in this time.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) struct Packet {
    socket: PacketSocket,
    /// Bytes of the longest frame that the guest may send in one piece: the device takes longer ones from it.
    longest: usize,
}

impl Packet {
    pub(super) fn new(socket: PacketSocket, mtu: u16) -> Self {
        Self { socket, longest: ETHERNET_HEADER_LEN + usize::from(mtu) }
    }
}

impl Wire for Packet {
    fn receive(&mut self, take: &mut Take<'_>) -> Result<bool, LinkError> {
        for taken in 0..TURN {
            let Some(mut received) = self.socket.receive() else { return Ok(taken > 0) };
            take(complete(&mut received, self.longest));
        }
        Ok(true)
    }

    fn send(&mut self, out: &mut Outbox) -> Result<(), LinkError> {
        Ok(out.flush_frames(|frame| self.socket.send(frame))?)
    }

    fn wait(&self, waiting: bool, alarm: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<(), LinkError> {
        let pause = waiting.then_some(PAUSE);
        let timeout = timeout.into_iter().chain(pause).min();
        let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        if either(self.socket.as_fd(), PollFlags::IN, alarm, timeout)?.intersects(gone) {
            return Err(LinkError::Closed);
        }
        Ok(())
    }
}

/// The frame as a network card would have sent it.
fn complete<'r>(received: &'r mut Received<'_>, longest: usize) -> Result<&'r [u8], Dropped> {
    let (intact, offload) = (received.intact, received.offload);
    let frame = received.frame();
    let fits = match offload.batch {
        Batch::No => frame.len() <= longest,
        Batch::Tcp => true,
        // It would be taken for one datagram.
        Batch::Other => false,
    };
    if !intact || !fits {
        return Err(Dropped::Malformed);
    }
    if let Some(missing) = offload.checksum {
        checksum::complete(frame, missing.start, missing.offset)?;
    }
    Ok(frame)
}
