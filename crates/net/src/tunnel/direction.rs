//! One direction of a tunnel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use policy::secret::LeakScanner;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The buffer of a direction that carries little, and of most tunnels: there may be thousands.
pub(super) const MIN_BUFFER: usize = 8 * 1024;

/// The buffer of one that carries much: more made no difference, and this is what it costs us.
const MAX_BUFFER: usize = 128 * 1024;

pub(super) struct Direction {
    buffer: Vec<u8>,
    /// What is in the buffer and not written yet.
    start: usize,
    end: usize,
    /// How many bytes behind that must wait for those that follow.
    held: usize,
    /// What the last read brought, until the buffer was fitted to it.
    last: Option<usize>,
    /// Bytes that were written.
    moved: u64,
    state: State,
    scanners: Vec<LeakScanner>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is held back by the writer.
    Flushed,
    /// The writer may hold something back.
    Written,
    /// The reader has finished.
    Ended,
    /// The writer knows that.
    Closed,
}

/// Why a direction cannot go on.
pub(super) enum Broken {
    Io(io::Error),
    /// It was about to carry a secret's value.
    Leak,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Direction {
    pub(super) fn new(scanners: Vec<LeakScanner>) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            end: 0,
            held: 0,
            last: None,
            moved: 0,
            state: State::Flushed,
            scanners,
        }
    }

    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Copies as much as there is; ready when `from` has finished and `to` knows.
    pub(super) fn poll<R: AsyncRead, W: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut R>,
        mut to: Pin<&mut W>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            while self.start < self.end {
                let written = ready!(to.as_mut().poll_write(cx, &self.buffer[self.start..self.end]))?;
                if written == 0 {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
                }
                self.start += written;
                self.moved += written as u64;
                if self.state == State::Flushed {
                    self.state = State::Written;
                }
            }
            match self.state {
                State::Closed => return Poll::Ready(Ok(())),
                State::Ended => {
                    match ready!(to.as_mut().poll_shutdown(cx)) {
                        // It has gone without waiting for our end, which is no loss.
                        Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                            return Poll::Ready(Err(error.into()));
                        }
                        _ => self.state = State::Closed,
                    }
                }
                State::Flushed | State::Written => match self.poll_fill(cx, from.as_mut())? {
                    Poll::Ready(()) => {}
                    Poll::Pending => {
                        if self.state == State::Written {
                            ready!(to.as_mut().poll_flush(cx))?;
                            self.state = State::Flushed;
                        }
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    /// Fills the buffer, empty but for what is held, or learns of the end.
    fn poll_fill<R: AsyncRead>(
        &mut self,
        cx: &mut Context<'_>,
        from: Pin<&mut R>,
    ) -> Poll<Result<(), Broken>> {
        self.buffer.copy_within(self.end..self.end + self.held, 0);
        (self.start, self.end) = (0, 0);
        self.fit();
        let mut space = ReadBuf::new(&mut self.buffer[self.held..]);
        ready!(from.poll_read(cx, &mut space))?;
        let read = space.filled().len();
        let all = self.held + read;
        if read == 0 {
            self.state = State::Ended;
        }
        let bytes = &self.buffer[self.held..all];
        // At the end nothing follows that could make a value of it.
        self.held = 0;
        for scanner in self.scanners.iter_mut().filter(|_| read > 0) {
            if scanner.feed(bytes) {
                return Poll::Ready(Err(Broken::Leak));
            }
            self.held = self.held.max(scanner.held().min(all));
        }
        (self.end, self.last) = (all - self.held, Some(read));
        Poll::Ready(Ok(()))
    }

    /// Makes the buffer as large as the last read suggests.
    fn fit(&mut self) {
        let size = self.buffer.len();
        let fitting = match self.last.take() {
            Some(last) if last == size => size * 2,
            Some(last) if last < size / 8 => size / 2,
            _ => size,
        };
        let fitting = fitting.clamp(MIN_BUFFER, MAX_BUFFER).max(self.held + MIN_BUFFER);
        self.buffer.resize(fitting, 0);
        if fitting < size {
            self.buffer.shrink_to_fit();
        }
    }
}
