//! What the sessions of one process share: the host, the methods, and a bound on the memory for
//! collected output.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::host::Host;
use crate::method::Methods;

/// Output and logs that are collected for all answers together, bytes. A hostile guest could
/// otherwise fill the host's memory through as many commands as clients start.
const MAX_COLLECTED: usize = 256 * 1024 * 1024;

/// A sandbox and what can be asked of it. Clones are the same.
#[derive(Debug)]
pub struct Service<H: Host> {
    pub(crate) host: Arc<H>,
    pub(crate) methods: Arc<Methods<H>>,
    pub(crate) collected: Collected,
}

impl<H: Host> Service<H> {
    /// These methods of this host.
    #[must_use]
    pub fn new(host: Arc<H>, methods: Methods<H>) -> Self {
        let collected = Collected(Arc::new(Semaphore::new(MAX_COLLECTED)));
        Self { host, methods: Arc::new(methods), collected }
    }
}

impl<H: Host> Clone for Service<H> {
    fn clone(&self) -> Self {
        Self {
            host: Arc::clone(&self.host),
            methods: Arc::clone(&self.methods),
            collected: self.collected.clone(),
        }
    }
}

/// Bounds what is collected.
#[derive(Debug, Clone)]
pub(crate) struct Collected(Arc<Semaphore>);

impl Collected {
    /// For one request, which holds nothing yet.
    pub(crate) fn begin(&self) -> Held {
        Held { all: Arc::clone(&self.0), room: Arc::default() }
    }
}

/// The memory that one request and its answer have for what is collected. Clones are the same; it is
/// given back with the last of them, which is to be dropped when the answer has left: a client that
/// does not read its answers must not get ever more of it.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    all: Arc<Semaphore>,
    room: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Held {
    /// Takes room for so many bytes more; whether there was any.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Arc::clone(&self.all).try_acquire_many_owned(bytes).is_ok_and(|room| self.keep(room))
    }

    /// The same, after waiting for others to give it back. Cancel-safe.
    pub(crate) async fn wait_for(&self, bytes: usize, patience: Duration) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = timeout(patience, Arc::clone(&self.all).acquire_many_owned(bytes)).await;
        room.is_ok_and(|room| room.is_ok_and(|room| self.keep(room)))
    }

    fn keep(&self, more: OwnedSemaphorePermit) -> bool {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        match room.as_mut() {
            None => *room = Some(more),
            Some(sum) => sum.merge(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_an_answer_takes_is_given_back_when_it_has_left() {
        let all = Collected(Arc::new(Semaphore::new(100)));
        let (first, second) = (all.begin(), all.begin());
        assert!(first.take(30) && first.take(30) && second.take(30));
        assert!(!second.take(11) && !second.take(usize::MAX), "there is no more");
        let answer = first.clone();
        drop(first);
        assert!(!second.wait_for(70, Duration::from_millis(50)).await, "the answer has not left");
        let (enough, ()) = tokio::join!(second.wait_for(70, Duration::from_secs(10)), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(answer);
        });
        assert!(enough);
    }
}
