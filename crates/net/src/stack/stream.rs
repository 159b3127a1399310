//! A connection of the guest's as a task on tokio has it: first a SYN, to be accepted or refused, then a
//! stream. Both move bytes between the task's buffers and the connection's own, under its lock.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use smoltcp::socket::tcp::RecvError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

use super::flow::{Flow, is_opening};
use super::shared::{Share, Shared};

/// A guest's wish to connect. It is not answered until it is accepted; dropping it refuses it.
pub struct Syn {
    flow: Option<Arc<Flow>>,
    shared: Arc<Shared>,
    _share: Share,
    source: SocketAddr,
    destination: SocketAddr,
}

impl Syn {
    pub(super) fn new(flow: Arc<Flow>, shared: Arc<Shared>, share: Share) -> Self {
        let (source, destination) = (flow.source, flow.destination);
        Self { flow: Some(flow), shared, _share: share, source, destination }
    }

    /// The guest's end.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// What it wants to connect to.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// Answers it. What is written before the guest finished its handshake waits.
    pub fn accept(mut self) -> Stream {
        let flow = self.flow.take().expect("only dropping takes it, too");
        flow.accept(&self.shared);
        self.shared.note(&flow);
        Stream { flow, shared: self.shared.clone() }
    }

    /// Refuses it: the guest gets a reset, as from a port on which nobody listens.
    pub fn refuse(self) {}

    /// Forgets it, so that the guest asks again.
    pub(super) fn forget(mut self) {
        self.flow = None;
    }
}

impl Drop for Syn {
    fn drop(&mut self) {
        if let Some(flow) = self.flow.take() {
            flow.refuse();
            self.shared.note(&flow);
        }
    }
}

/// A connection of the guest's.
///
/// Shutting it down sends what was written and then a FIN; what the guest sends can still be read. Dropping
/// it breaks it off with a reset, unless it was shut down: then what was written is still delivered.
pub struct Stream {
    flow: Arc<Flow>,
    shared: Arc<Shared>,
}

impl Stream {
    /// The guest's end.
    pub fn source(&self) -> SocketAddr {
        self.flow.source
    }

    /// The end that the guest thinks it talks to.
    pub fn destination(&self) -> SocketAddr {
        self.flow.destination
    }

    /// Breaks it off: the guest gets a reset.
    pub fn abort(self) {
        self.flow.lock().aborted = true;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.flow.lock();
        state.aborted |= !state.shut;
        state.released = Some(Instant::now());
        drop(state);
        self.shared.note(&self.flow);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let coop = ready!(coop::poll_proceed(cx));
        let mut guard = self.flow.lock();
        let state = &mut *guard;
        let Some(socket) = state.socket() else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let before = buf.filled().len();
        // Twice: a ring has two ends.
        while socket.can_recv() && buf.remaining() > 0 {
            let taken = socket.recv(|data| {
                let length = data.len().min(buf.remaining());
                buf.put_slice(&data[..length]);
                (length, ())
            });
            if taken.is_err() {
                break;
            }
        }
        let (read, capacity) = (buf.filled().len() - before, socket.recv_capacity());
        if read > 0 {
            // The guest learns of the window with the next packet; before that only when it matters to it.
            let step = capacity / 4;
            let tell = (state.unannounced + read) / step > state.unannounced / step;
            state.unannounced += read;
            drop(guard);
            if tell {
                self.shared.note(&self.flow);
            }
        } else if buf.remaining() > 0 {
            let ended = match socket.recv(|_| (0, ())) {
                Ok(()) => None,
                Err(RecvError::InvalidState) if is_opening(socket) => None,
                Err(RecvError::Finished) => Some(Ok(())),
                Err(RecvError::InvalidState) => Some(Err(io::ErrorKind::ConnectionReset.into())),
            };
            match ended {
                Some(end) => return Poll::Ready(end),
                None => {
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        coop.made_progress();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let coop = ready!(coop::poll_proceed(cx));
        let mut guard = self.flow.lock();
        let state = &mut *guard;
        if state.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let Some(socket) = state.socket() else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if !is_opening(socket) && !socket.may_send() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut written = 0;
        for mut part in parts.iter().map(|part| &part[..]) {
            while !part.is_empty() && socket.can_send() {
                let Ok(count) = socket.send_slice(part) else { break };
                written += count;
                part = &part[count..];
            }
        }
        if written == 0 && parts.iter().any(|part| !part.is_empty()) {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(guard);
        if written > 0 {
            self.shared.note(&self.flow);
        }
        coop.made_progress();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.flow.lock();
        let news = !state.shut;
        state.shut = true;
        drop(state);
        if news {
            self.shared.note(&self.flow);
        }
        Poll::Ready(Ok(()))
    }
}
