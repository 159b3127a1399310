//! One stream as tokio's reader and writer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use proto::frame::{Reason, StreamId};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Owner;
use super::state::{Flow, State, wait};

/// A stream to or from the guest.
///
/// Shutting it down ends our direction only; dropping it before both directions are at their end
/// resets it, which tells the guest that nobody waits for it any more. Reading what arrived before
/// the guest's end or the channel's end works to the last byte; a reset drops it.
#[derive(Debug)]
pub struct Stream {
    owner: Arc<Owner>,
    id: StreamId,
}

/// The guest reset the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the guest reset the stream: {}", match .0 {
    Reason::Refused => "nobody listens on that port",
    Reason::Cancelled => "cancelled",
    Reason::TooManyStreams => "too many streams",
})]
pub struct Reset(pub Reason);

impl From<Reset> for io::Error {
    fn from(reset: Reset) -> Self {
        let kind = match reset.0 {
            Reason::Refused => io::ErrorKind::ConnectionRefused,
            Reason::Cancelled => io::ErrorKind::ConnectionReset,
            Reason::TooManyStreams => io::ErrorKind::QuotaExceeded,
        };
        Self::new(kind, reset)
    }
}

impl Stream {
    pub(super) fn new(owner: Arc<Owner>, id: StreamId) -> Self {
        Self { owner, id }
    }
}

impl State {
    fn flow(&mut self, id: StreamId) -> &mut Flow {
        self.flows.get_mut(&id).expect("only dropping the stream removes its flow")
    }

    /// Fails if nothing more can come or go.
    fn usable(&mut self, id: StreamId) -> io::Result<()> {
        if let Some(reason) = self.flow(id).reset {
            return Err(Reset(reason).into());
        }
        self.alive().map_err(io::Error::from)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let shared = &self.owner.shared;
        let mut state = shared.lock();
        let flow = state.flow(self.id);
        let read = flow.received.len().min(buffer.remaining());
        if read == 0 && buffer.remaining() > 0 {
            if flow.peer_finished {
                return Poll::Ready(Ok(()));
            }
            state.usable(self.id)?;
            return wait(&mut state.flow(self.id).reader, context);
        }
        let (front, back) = flow.received.as_slices();
        let from_front = read.min(front.len());
        buffer.put_slice(&front[..from_front]);
        buffer.put_slice(&back[..read - from_front]);
        flow.received.drain(..read);
        if let Some(credit) = state.mux.taken(self.id, read) {
            shared.send(&mut state, credit, &[]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let shared = &self.owner.shared;
        let mut state = shared.lock();
        state.usable(self.id)?;
        let mut rest = bytes;
        while !rest.is_empty() && !state.full() {
            let header = state.mux.send(self.id, rest.len());
            let header = header.map_err(|gone| io::Error::new(io::ErrorKind::BrokenPipe, gone))?;
            let Some(header) = header else { break };
            let (payload, after) = rest.split_at(header.payload_len());
            shared.send(&mut state, header, payload);
            rest = after;
        }
        let written = bytes.len() - rest.len();
        if written == 0 && !bytes.is_empty() {
            return wait(&mut state.flow(self.id).writer, context);
        }
        Poll::Ready(Ok(written))
    }

    /// What was written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &self.owner.shared;
        let mut state = shared.lock();
        if let Some(finish) = state.mux.finish(self.id) {
            shared.send(&mut state, finish, &[]);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let shared = &self.owner.shared;
        let mut state = shared.lock();
        state.flows.remove(&self.id);
        shared.reset(&mut state, self.id, Reason::Cancelled);
    }
}
