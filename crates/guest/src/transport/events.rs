//! One thread that serves all streams of a port: what happens to any of them makes one descriptor
//! readable.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use proto::frame::StreamId;
use rustix::event::{EventfdFlags, eventfd};

/// What has happened since it was last asked. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    descriptor: OwnedFd,
    news: Mutex<News>,
}

#[derive(Debug, Default)]
pub(crate) struct News {
    /// A stream waits to be accepted, or there will be none any more.
    pub(crate) arrived: bool,
    /// Streams to which something has happened: data, credit, an end.
    pub(crate) streams: HashSet<StreamId>,
}

impl Events {
    /// None yet.
    pub(crate) fn new() -> io::Result<Self> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Shared { descriptor, news: Mutex::default() })))
    }

    /// What has happened; the descriptor is not readable until there is more.
    pub(crate) fn take(&self) -> News {
        let mut news = self.0.news.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing to read is nothing to reset.
        let _ = rustix::io::read(&self.0.descriptor, &mut [0; 8]);
        std::mem::take(&mut *news)
    }

    fn tell(&self, change: impl FnOnce(&mut News)) {
        let mut news = self.0.news.lock().unwrap_or_else(PoisonError::into_inner);
        let told = news.arrived || !news.streams.is_empty();
        change(&mut news);
        if !told {
            // It could only fail after 2^64 of them.
            let _ = rustix::io::write(&self.0.descriptor, &1u64.to_ne_bytes());
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.descriptor.as_fd()
    }
}

/// Who is woken when something happens to a stream, or when one arrives.
#[derive(Debug, Clone)]
pub(super) enum Waker {
    /// Threads that wait for this one.
    Threads(Arc<Condvar>),
    /// The thread that serves all of them.
    Events(Events),
}

impl Waker {
    /// Something happened to `stream`.
    pub(super) fn changed(&self, stream: StreamId) {
        match self {
            Self::Threads(condition) => condition.notify_all(),
            Self::Events(events) => events.tell(|news| {
                news.streams.insert(stream);
            }),
        }
    }

    /// A stream arrived, or there will be none any more.
    pub(super) fn arrived(&self) {
        match self {
            Self::Threads(condition) => condition.notify_all(),
            Self::Events(events) => events.tell(|news| news.arrived = true),
        }
    }
}
