//! Frames on their way to the guest. One buffer of fixed size, written with as few system calls as the
//! link allows; when it is full, flows wait and answers are dropped.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::net::SendFlags;
use smoltcp::wire::{ETHERNET_HEADER_LEN, EthernetProtocol};

use super::answer;

/// Bytes that wait before flows have to. A guest whose VMM does not read makes us hold this much.
const SOFT: usize = 512 * 1024;
/// Bytes that wait before answers (resets, echoes) are dropped, too: a guest that asks and never reads.
const HARD: usize = SOFT + 128 * 1024;
/// Bytes already written after which the rest is moved to the front.
const COMPACT: usize = 256 * 1024;
/// Room for one more frame with its length, whatever is waiting, so that a frame can always be made.
const SPARE: usize = 4 + ETHERNET_HEADER_LEN + 65_536;

/// Frames with their lengths, as a stream carries them.
pub(super) struct Outbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; COMPACT + HARD + SPARE], start: 0, end: 0 }
    }

    /// Whether something is waiting for the link.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether a flow may send.
    pub(super) fn has_room(&self) -> bool {
        self.end - self.start < SOFT
    }

    /// Puts in an IP packet of `length` bytes, unless there are too many already; `fill` makes it.
    pub(super) fn packet<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        self.frame(ETHERNET_HEADER_LEN + length, |frame| {
            let packet = &mut frame[ETHERNET_HEADER_LEN..];
            let result = fill(packet);
            let protocol = match packet.first() {
                Some(first) if first >> 4 == 6 => EthernetProtocol::Ipv6,
                _ => EthernetProtocol::Ipv4,
            };
            answer::ethernet(frame, protocol);
            result
        })
    }

    /// Puts in a frame of `length` bytes, unless there are too many already; `fill` makes it.
    pub(super) fn frame<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let body = self.end + 4;
        let result = fill(&mut self.buffer[body..body + length]);
        if self.end - self.start < HARD {
            // No frame is longer than SPARE.
            let prefix = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
            self.buffer[self.end..body].copy_from_slice(&prefix);
            self.end = body + length;
        }
        result
    }

    /// Writes what a stream takes now.
    pub(super) fn flush(&mut self, link: &UnixStream) -> io::Result<()> {
        while self.start < self.end {
            match rustix::net::send(link, &self.buffer[self.start..self.end], SendFlags::NOSIGNAL) {
                Ok(written) => self.start += written,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.compact();
        Ok(())
    }

    /// Hands frames to `send`, one by one and without their lengths, until it does not take one.
    pub(super) fn flush_frames(&mut self, mut send: impl FnMut(&[u8]) -> io::Result<bool>) -> io::Result<()> {
        while let Some((prefix, rest)) = self.buffer[self.start..self.end].split_first_chunk::<4>() {
            // As `frame` has written it.
            let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(rest.len());
            if !send(&rest[..length])? {
                break;
            }
            self.start += 4 + length;
        }
        self.compact();
        Ok(())
    }

    fn compact(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start >= COMPACT {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}
