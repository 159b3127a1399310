//! The host's end of the multiplexer: streams to and from the guest over one Unix socket.
//!
//! The rules (who may open, who may send how much) are [`proto::mux::Mux`]; here are the buffers,
//! the wake-ups and the I/O. One task pumps the socket: everything that streams have to say is
//! appended to one queue and leaves in as few writes as possible, everything that arrives is
//! sorted into the streams' buffers. The lock around the state is held for copying, never across
//! an await.
//!
//! The guest is hostile: what it can make us buffer is bounded by the credit of its streams and by
//! the queue's limit, and the first broken rule ends the channel with a [`ChannelError`] that
//! every stream reports.

mod pump;
mod state;
mod stream;

use std::future::{Future, ready};
use std::io;
use std::sync::Arc;

use api::{Explain, Kind};
use proto::Port;
use proto::frame::FrameError;
use proto::mux::{MuxError, TooManyStreams};
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::task::AbortHandle;

use state::Shared;
pub use stream::{Reset, Stream};

/// Why a channel ended, or would not open a stream. Once ended it stays ended.
#[derive(Debug, Clone, Error)]
pub enum ChannelError {
    /// The VM is gone, or its end of the channel was closed.
    #[error("the channel to the VM is closed")]
    Gone,
    /// The socket to the VMM failed.
    #[error("the channel to the VM failed")]
    Io(#[source] Arc<io::Error>),
    /// The guest sent a malformed frame.
    #[error("the guest broke the channel's protocol")]
    Frame(#[source] FrameError),
    /// The guest broke a rule of the multiplexer.
    #[error("the guest broke the channel's protocol")]
    Mux(#[source] MuxError),
    /// As many streams are open as may be; the channel lives on.
    #[error("no more streams to the guest")]
    TooManyStreams(#[source] TooManyStreams),
}

impl Explain for ChannelError {
    fn kind(&self) -> Kind {
        match self {
            Self::Gone | Self::Io(_) | Self::Frame(_) | Self::Mux(_) => Kind::Vm,
            Self::TooManyStreams(_) => Kind::LimitExceeded,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::TooManyStreams(_) => {
                Some("wait for some of the sandbox's commands or connections to end".to_owned())
            }
            _ => None,
        }
    }
}

impl From<ChannelError> for io::Error {
    fn from(error: ChannelError) -> Self {
        let kind = match error {
            ChannelError::Gone => io::ErrorKind::BrokenPipe,
            ChannelError::Io(ref source) => source.kind(),
            ChannelError::Frame(_) | ChannelError::Mux(_) => io::ErrorKind::InvalidData,
            ChannelError::TooManyStreams(_) => io::ErrorKind::QuotaExceeded,
        };
        Self::new(kind, error)
    }
}

/// A channel to a guest. Clones are the same channel; it ends when the last clone and the last
/// stream are dropped, or the guest is gone.
#[derive(Debug, Clone)]
pub struct Channel {
    owner: Arc<Owner>,
}

/// What every channel and stream holds: with the last of them the pump ends, and the socket is
/// closed.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    pump: AbortHandle,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Channel {
    /// The channel over `socket`, whose other end is the VM's. Streams that the guest opens to one
    /// of `listen` wait for [`Channel::accept`]; those to any other port are refused.
    ///
    /// Must be called within a tokio runtime: the pump runs as a task of it.
    #[must_use]
    pub fn new(socket: UnixStream, listen: &[Port]) -> Self {
        Self::connecting(ready(Ok(socket)), listen)
    }

    /// The same over a socket that is still to come; until then what is said waits.
    #[must_use]
    pub fn connecting(
        socket: impl Future<Output = Result<UnixStream, ChannelError>> + Send + 'static,
        listen: &[Port],
    ) -> Self {
        let shared = Arc::new(Shared::new(listen));
        let theirs = Arc::clone(&shared);
        let pump = tokio::spawn(async move {
            match socket.await {
                Ok(socket) => pump::run(theirs, socket).await,
                Err(end) => theirs.finish(end),
            }
        });
        Self { owner: Arc::new(Owner { shared, pump: pump.abort_handle() }) }
    }

    /// Opens a stream to the guest's `port`. It can be written at once; if nobody listens there,
    /// reading and writing fail with [`io::ErrorKind::ConnectionRefused`].
    ///
    /// # Errors
    /// [`ChannelError::TooManyStreams`], or why the channel ended.
    pub fn open(&self, port: Port) -> Result<Stream, ChannelError> {
        let id = self.owner.shared.open(port as u32)?;
        Ok(Stream::new(Arc::clone(&self.owner), id))
    }

    /// The next stream that the guest opens to our `port`, which was listed in [`Channel::new`].
    /// Cancel-safe.
    ///
    /// # Errors
    /// Why the channel ended.
    pub async fn accept(&self, port: Port) -> Result<Stream, ChannelError> {
        let id = self.owner.shared.accept(port as u32).await?;
        Ok(Stream::new(Arc::clone(&self.owner), id))
    }

    /// Waits until the channel has ended, and says why.
    pub async fn ended(&self) -> ChannelError {
        self.owner.shared.ended().await
    }
}

#[cfg(test)]
mod tests;
