//! Frames from the guest, as the link carries them: a length of four bytes, big-endian, then the frame
//! (QEMU's `-netdev stream`). The VMM may be in the guest's hands: a length that cannot be ends the link.

use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::net::UnixStream;

use super::link::LinkError;

/// Bytes of the longest frame: QEMU's own limit (`NET_BUFSIZE` of its `net/net.h`).
const LONGEST: usize = 65_536 + 4096;
/// Bytes that are read at once: a few of the longest frames.
const CAPACITY: usize = 256 * 1024;

/// What has been read and not been looked at.
pub(super) struct Inbox {
    buffer: Vec<u8>,
    unread: Range<usize>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; CAPACITY], unread: 0..0 }
    }

    /// Reads what is there, if anything is.
    pub(super) fn fill(&mut self, mut link: &UnixStream) -> Result<bool, LinkError> {
        if self.unread.start > 0 {
            // At most the beginning of one frame, since whole ones were taken out.
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        match link.read(&mut self.buffer[self.unread.end..]) {
            Ok(0) => Err(LinkError::Closed),
            Ok(read) => {
                self.unread.end += read;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The next whole frame.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, LinkError> {
        let unread = &self.buffer[self.unread.clone()];
        let Some((prefix, rest)) = unread.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*prefix);
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size == 0 || size > LONGEST {
            return Err(LinkError::Length { length });
        }
        let frame = rest.get(..size);
        if frame.is_some() {
            self.unread.start += 4 + size;
        }
        Ok(frame)
    }
}
