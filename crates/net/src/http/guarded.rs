//! A guest's connection behind a [`Guard`]: reading it gives whole heads and bodies that are in order, and
//! the end of the connection where something is not.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::guard::{Guard, Violation};

/// Bytes read at a time: what must be initialised for it.
const CHUNK: usize = 64 * 1024;

/// The most memory that a connection keeps while nothing is in it.
const KEEP: usize = 4 * 1024;

/// What whoever serves the connection has to say and to know.
#[derive(Debug, Default)]
pub(super) struct Control {
    released: AtomicBool,
    /// And whether it was in a head.
    violation: OnceLock<(Violation, bool)>,
}

impl Control {
    /// Lets everything pass from now on: an upgrade was granted.
    pub(super) fn release(&self) {
        self.released.store(true, Ordering::Release);
    }

    /// What the guest did, if the connection ended for that.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.violation.get().map(|&(violation, _)| violation)
    }

    /// Whether that was in a head, and so in no request that anybody answers.
    pub(super) fn malformed_head(&self) -> bool {
        self.violation.get().is_some_and(|&(_, in_head)| in_head)
    }
}

/// A connection, guarded.
pub(super) struct Guarded<S> {
    io: S,
    control: Arc<Control>,
    guard: Guard,
    /// Looked at, not yet given on, from `at`.
    passed: Vec<u8>,
    at: usize,
    is_raw: bool,
    /// The answer to a malformed head, as far as it is not written.
    answer: Answer,
}

/// What is still to be said before the connection is shut down.
enum Answer {
    Unknown(Vec<u8>),
    Writing(Vec<u8>, usize),
    Done,
}

impl<S> Guarded<S> {
    /// `answer` is the whole response to a malformed head.
    pub(super) fn new(io: S, control: Arc<Control>, answer: Vec<u8>) -> Self {
        Self {
            io,
            control,
            guard: Guard::default(),
            passed: Vec::new(),
            at: 0,
            is_raw: false,
            answer: Answer::Unknown(answer),
        }
    }

    /// Gives on what has passed; whether there was anything.
    fn give(&mut self, to: &mut ReadBuf<'_>) -> bool {
        let left = &self.passed[self.at..];
        let count = left.len().min(to.remaining());
        to.put_slice(&left[..count]);
        self.at += count;
        if self.at == self.passed.len() {
            self.passed.clear();
            self.passed.shrink_to(KEEP);
            self.at = 0;
        }
        count > 0
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if to.remaining() == 0 || this.give(to) || this.control.violation().is_some() {
                return Poll::Ready(Ok(()));
            }
            if !this.is_raw && this.control.released.load(Ordering::Acquire) {
                this.is_raw = true;
                this.passed = this.guard.release();
                continue;
            }
            // What needs no look goes straight through.
            let free = usize::try_from(this.guard.free()).unwrap_or(usize::MAX);
            if free > 0 {
                let mut some = ReadBuf::new(to.initialize_unfilled_to(free.min(to.remaining()).min(CHUNK)));
                ready!(Pin::new(&mut this.io).poll_read(cx, &mut some))?;
                let count = some.filled().len();
                to.advance(count);
                this.guard.passed(count as u64);
                return Poll::Ready(Ok(()));
            }
            // What is looked at is read into the same memory, and written there again if it may pass.
            let mut chunk = ReadBuf::new(to.initialize_unfilled_to(to.remaining().min(CHUNK)));
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut chunk))?;
            let bytes = chunk.filled();
            if bytes.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Err(violation) = this.guard.feed(bytes, &mut this.passed) {
                // Set once: nothing is fed after it.
                let _ = this.control.violation.set((violation, this.guard.refused_head()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    /// Says what was wrong with the last head, if that can be said, and ends.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.answer {
                Answer::Unknown(answer) => {
                    let answer = std::mem::take(answer);
                    this.answer =
                        if this.guard.can_answer() { Answer::Writing(answer, 0) } else { Answer::Done };
                }
                Answer::Writing(answer, at) if *at < answer.len() => {
                    let count = ready!(Pin::new(&mut this.io).poll_write(cx, &answer[*at..]))?;
                    if count == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    *at += count;
                }
                Answer::Writing(..) => {
                    ready!(Pin::new(&mut this.io).poll_flush(cx))?;
                    this.answer = Answer::Done;
                }
                Answer::Done => return Pin::new(&mut this.io).poll_shutdown(cx),
            }
        }
    }
}
