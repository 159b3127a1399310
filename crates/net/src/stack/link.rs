//! The link to a VMM, of either kind: how frames come and go over it, and how it is waited for.

mod packet;
mod stream;

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sys::packet::PacketSocket;

use super::filter::Dropped;
use super::outbox::Outbox;

/// A link to a VMM.
#[derive(Debug)]
pub enum Link {
    /// Each frame after its length (4 bytes, big-endian), as QEMU's `-netdev stream` has them.
    Stream(UnixStream),
    /// The TAP device that is the VMM's. Its MTU is at least that of the stack.
    Packet(PacketSocket),
}

/// Why the link to the guest ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The VMM closed it: what happens when it ends.
    #[error("the virtual machine's end of the network link is closed")]
    Closed,
    /// A frame that no VMM sends.
    #[error("a frame of {length} bytes on the network link")]
    Length {
        /// How long it was said to be.
        length: u32,
    },
    /// The socket failed.
    #[error("the network link failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Closed with something of ours unread, or while we write; the device gone.
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NetworkDown => {
                Self::Closed
            }
            _ => Self::Io(error),
        }
    }
}

/// What takes a frame that came, or hears why there is none.
pub(super) type Take<'t> = dyn FnMut(Result<&[u8], Dropped>) + 't;

/// A link at work.
pub(super) trait Wire: Send {
    /// Takes in what there is, up to a bound, so that what follows from it is done in between. Whether
    /// there was anything.
    fn receive(&mut self, take: &mut Take<'_>) -> Result<bool, LinkError>;

    /// Sends what can be sent now.
    fn send(&mut self, out: &mut Outbox) -> Result<(), LinkError>;

    /// Waits for a frame, for the alarm, until it may be possible to send if something is `waiting`, and no
    /// longer than that.
    fn wait(&self, waiting: bool, alarm: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<(), LinkError>;
}

impl Link {
    /// Puts it to work, for IP packets of `mtu` bytes.
    pub(super) fn start(self, mtu: u16) -> io::Result<Box<dyn Wire>> {
        Ok(match self {
            Self::Stream(socket) => Box::new(stream::Stream::new(socket, mtu)?),
            Self::Packet(socket) => Box::new(packet::Packet::new(socket, mtu)),
        })
    }
}

/// Waits for the link or the alarm. What there is of the link.
fn either(
    link: BorrowedFd<'_>,
    interest: PollFlags,
    alarm: BorrowedFd<'_>,
    timeout: Option<Duration>,
) -> io::Result<PollFlags> {
    let timeout =
        timeout.map(|timeout| Timespec::try_from(timeout).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 }));
    let mut ready =
        [PollFd::from_borrowed_fd(link, interest), PollFd::from_borrowed_fd(alarm, PollFlags::IN)];
    match poll(&mut ready, timeout.as_ref()) {
        Ok(_) => Ok(ready[0].revents()),
        Err(rustix::io::Errno::INTR) => Ok(PollFlags::empty()),
        Err(error) => Err(error.into()),
    }
}
