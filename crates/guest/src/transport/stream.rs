//! One stream of a [`Channel`]: bytes both ways, in order, with credit; messages on top of them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, MutexGuard, PoisonError};

use proto::frame::{Reason, StreamId};
use proto::message::{self, MessageError, PREFIX_LEN};
use proto::mux::TooManyStreams;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{CHUNK, Channel, Flow, HEADROOM, State, Waker};

/// A stream cannot go on.
#[derive(Debug, Error)]
pub(crate) enum StreamError {
    /// The host reset it.
    #[error("the host reset the stream ({0:?})")]
    Reset(Reason),
    /// We have finished or given it up ourselves.
    #[error("the stream is finished")]
    Finished,
    /// The host ended it in the middle of something.
    #[error("the host ended the stream too early")]
    Truncated,
    /// The channel has ended.
    #[error("the channel is closed")]
    Closed,
    /// Writing to the channel failed.
    #[error("cannot write to the channel")]
    Io(#[from] io::Error),
    /// No stream could be opened.
    #[error(transparent)]
    TooMany(TooManyStreams),
    /// Not a message that we know.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// One stream. Two threads may share it, one reading and one sending. Dropping it before it was
/// finished resets it.
#[derive(Debug)]
pub(crate) struct Stream {
    channel: Channel,
    id: StreamId,
    changed: Arc<Condvar>,
}

/// What there is to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// This many bytes, taken.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The host's end, or ours after [`Stream::stop_reading`].
    End,
}

impl Stream {
    /// The stream `id`, whose flow exists.
    pub(super) fn new(channel: Channel, id: StreamId) -> Self {
        let changed = match channel.0.state().flows.get(&id) {
            Some(Flow { waker: Waker::Threads(changed), .. }) => Arc::clone(changed),
            _ => Arc::default(),
        };
        Self { channel, id, changed }
    }

    /// Its number.
    pub(crate) fn id(&self) -> StreamId {
        self.id
    }

    /// Reads what has arrived, at most `buffer.len()` bytes; waits if there is nothing. Zero is the
    /// host's end, or ours after [`Stream::stop_reading`].
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize, StreamError> {
        let mut state = self.channel.0.state();
        loop {
            let (read, credit) = state.read(self.id, |inbox| io::Read::read(inbox, buffer))?;
            let length = match read {
                Read::Bytes(length) => length,
                Read::End => 0,
                Read::Nothing => {
                    state = self.wait(state);
                    continue;
                }
            };
            drop(state);
            if let Some(credit) = credit {
                self.channel.0.write(credit, &[])?;
            }
            return Ok(length);
        }
    }

    /// Lets `take` have what has arrived, without a copy and without waiting; it says how many bytes it
    /// took. It must not wait either: nobody gets anything meanwhile.
    pub(crate) fn try_read(
        &self,
        take: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> Result<Read, StreamError> {
        let mut state = self.channel.0.state();
        let taken = state.read(self.id, |inbox| {
            let length = take(inbox.as_slices().0)?;
            inbox.drain(..length);
            if inbox.is_empty() {
                // There may be thousands of these streams, most of them idle.
                *inbox = VecDeque::new();
            }
            Ok(length)
        });
        let (read, credit) = taken?;
        drop(state);
        if let Some(credit) = credit {
            self.channel.0.write(credit, &[])?;
        }
        Ok(read)
    }

    /// Bytes that can be sent without waiting, if this thread alone sends.
    pub(crate) fn room(&self) -> Result<usize, StreamError> {
        let state = self.channel.0.state();
        state.check(self.id)?;
        state.mux.room(self.id).map_err(|_| StreamError::Finished)
    }

    /// Fails if the stream is over.
    pub(crate) fn check(&self) -> Result<(), StreamError> {
        self.channel.0.state().check(self.id)
    }

    /// Fills `buffer`.
    pub(crate) fn read_exact(&self, buffer: &mut [u8]) -> Result<(), StreamError> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read(&mut buffer[done..])? {
                0 => return Err(StreamError::Truncated),
                length => done += length,
            }
        }
        Ok(())
    }

    /// Reads the bytes of one message.
    pub(crate) fn read_message(&self) -> Result<Vec<u8>, StreamError> {
        let mut prefix = [0; PREFIX_LEN];
        self.read_exact(&mut prefix)?;
        let mut body = vec![0; message::length(prefix)?];
        self.read_exact(&mut body)?;
        Ok(body)
    }

    /// Reads one message.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> Result<T, StreamError> {
        Ok(message::decode(&self.read_message()?)?)
    }

    /// Sends one message.
    pub(crate) fn send<T: Serialize>(&self, value: &T) -> Result<(), StreamError> {
        self.write(&[&message::encode(value)?])
    }

    /// Sends `parts` one after the other; waits for credit.
    pub(crate) fn write(&self, parts: &[&[u8]]) -> Result<(), StreamError> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut sent = 0;
        while sent < total {
            let header = self.wait_for_credit((total - sent).min(CHUNK))?;
            let length = header.payload_len();
            let mut skip = sent;
            let mut left = length;
            let slices: Vec<&[u8]> = parts
                .iter()
                .map(|part| {
                    let start = skip.min(part.len());
                    let end = part.len().min(start + left);
                    skip -= start;
                    left -= end - start;
                    &part[start..end]
                })
                .collect();
            self.channel.0.write(header, &slices)?;
            sent += length;
        }
        Ok(())
    }

    /// Sends `buffer` without its first [`HEADROOM`] bytes, which are overwritten, as what has been
    /// sent is: so that nothing has to be copied. Waits for credit.
    pub(crate) fn write_in_place(&self, buffer: &mut [u8]) -> Result<(), StreamError> {
        let mut start = HEADROOM;
        while start < buffer.len() {
            let header = self.wait_for_credit((buffer.len() - start).min(CHUNK))?;
            let frame = &mut buffer[start - HEADROOM..start + header.payload_len()];
            frame[..HEADROOM].copy_from_slice(&header.encode());
            self.channel.0.write_frame(frame)?;
            start += header.payload_len();
        }
        Ok(())
    }

    /// No more will be sent.
    pub(crate) fn finish(&self) -> Result<(), StreamError> {
        let mut state = self.channel.0.state();
        let header = state.mux.finish(self.id);
        if let Some(flow) = state.flows.get_mut(&self.id) {
            flow.we_finished = true;
        }
        drop(state);
        match header {
            Some(header) => Ok(self.channel.0.write(header, &[])?),
            None => Err(StreamError::Finished),
        }
    }

    /// Nobody needs what the host still sends: a reader that waits gets the end, and what arrives is
    /// dropped.
    pub(crate) fn stop_reading(&self) {
        let mut state = self.channel.0.state();
        let credit = state.drop_inbox(self.id);
        drop(state);
        if let Some(credit) = credit {
            // If this cannot be written, the channel has ended and everybody hears of it.
            let _ = self.channel.0.write(credit, &[]);
        }
    }

    /// Calls `hook` from another thread when the host resets the stream, or now if it has done so.
    pub(crate) fn on_reset(&self, hook: impl FnOnce() + Send + 'static) {
        let mut state = self.channel.0.state();
        match state.flows.get_mut(&self.id) {
            Some(flow) if flow.reset.is_none() => flow.on_reset = Some(Box::new(hook)),
            _ => {
                drop(state);
                hook();
            }
        }
    }

    fn wait_for_credit(&self, wanted: usize) -> Result<proto::frame::Header, StreamError> {
        let mut state = self.channel.0.state();
        loop {
            state.check(self.id)?;
            match state.mux.send(self.id, wanted) {
                Ok(Some(header)) => return Ok(header),
                Ok(None) => state = self.wait(state),
                Err(_) => return Err(StreamError::Finished),
            }
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.channel.0.state();
        let credit = state.drop_inbox(self.id);
        let Some(flow) = state.flows.get_mut(&self.id) else { return };
        flow.abandoned = true;
        flow.on_reset = None;
        let header = if flow.we_finished || flow.reset.is_some() {
            credit
        } else {
            flow.reset = Some(Reason::Cancelled);
            state.mux.reset(self.id, Reason::Cancelled)
        };
        state.forget_if_over(self.id);
        drop(state);
        if let Some(header) = header {
            // As in `stop_reading`.
            let _ = self.channel.0.write(header, &[]);
        }
    }
}

impl State {
    /// Fails if nothing can come or go any more.
    fn check(&self, stream: StreamId) -> Result<(), StreamError> {
        match self.flows.get(&stream).and_then(|flow| flow.reset) {
            Some(reason) => Err(StreamError::Reset(reason)),
            None if self.closed => Err(StreamError::Closed),
            None => Ok(()),
        }
    }

    /// Lets `take` have the inbox of `stream` if there is something in it. Gives what was read, and the
    /// frame with the credit for it.
    fn read(
        &mut self,
        stream: StreamId,
        take: impl FnOnce(&mut VecDeque<u8>) -> io::Result<usize>,
    ) -> Result<(Read, Option<proto::frame::Header>), StreamError> {
        let flow = self.flows.get_mut(&stream).ok_or(StreamError::Finished)?;
        if let Some(reason) = flow.reset {
            return Err(StreamError::Reset(reason));
        }
        if !flow.inbox.is_empty() {
            let length = take(&mut flow.inbox)?;
            return Ok((Read::Bytes(length), self.mux.taken(stream, length)));
        }
        match flow.peer_finished || flow.unread {
            true => Ok((Read::End, None)),
            false if self.closed => Err(StreamError::Closed),
            false => Ok((Read::Nothing, None)),
        }
    }

    /// From now on nothing that arrives on `stream` is kept; gives the credit for what was.
    fn drop_inbox(&mut self, stream: StreamId) -> Option<proto::frame::Header> {
        let flow: &mut Flow = self.flows.get_mut(&stream)?;
        flow.unread = true;
        flow.waker.changed(stream);
        let length = std::mem::take(&mut flow.inbox).len();
        self.mux.taken(stream, length)
    }
}
