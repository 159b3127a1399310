//! One stream as tokio's reader and writer.

use std::collections::VecDeque;
use std::future::poll_fn;
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

/// Both directions at once and without a buffer between: for those who move bytes between a stream and
/// a socket.
impl Stream {
    /// Waits until [`Stream::try_take`] has something to say.
    pub async fn readable(&self) {
        poll_fn(|context| {
            let mut state = self.owner.shared.lock();
            let over = state.usable(self.id).is_err();
            let flow = state.flow(self.id);
            if over || flow.peer_finished || !flow.received.is_empty() {
                return Poll::Ready(());
            }
            wait(&mut flow.reader, context)
        })
        .await;
    }

    /// Lets `take` have bytes that have arrived, as they are in the stream's buffer; it says how many it
    /// took. It must not wait: the channel stands still meanwhile. `None` is the guest's end.
    ///
    /// # Errors
    /// What `take` gives; [`io::ErrorKind::WouldBlock`] if nothing is there; a reset, or the channel's
    /// end.
    pub fn try_take(&self, take: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<Option<usize>> {
        let shared = &self.owner.shared;
        let mut state = shared.lock();
        let flow = state.flow(self.id);
        if flow.received.is_empty() {
            if flow.peer_finished {
                return Ok(None);
            }
            state.usable(self.id)?;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = take(flow.received.as_slices().0)?;
        flow.received.drain(..taken);
        if flow.received.is_empty() {
            // There may be thousands of these streams, most of them idle.
            flow.received = VecDeque::new();
        }
        if let Some(credit) = state.mux.taken(self.id, taken) {
            shared.send(&mut state, credit, &[]);
        }
        Ok(Some(taken))
    }

    /// Sends all of `bytes`; waits for credit.
    ///
    /// # Errors
    /// A reset, our own end, or the channel's end.
    pub async fn send(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = poll_fn(|context| self.poll_send(context, bytes)).await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Ends our direction.
    pub fn finish(&self) {
        let shared = &self.owner.shared;
        let mut state = shared.lock();
        if let Some(finish) = state.mux.finish(self.id) {
            shared.send(&mut state, finish, &[]);
        }
    }

    fn poll_send(&self, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
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
        self.poll_send(context, bytes)
    }

    /// What was written is on its way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
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
