//! The requests that a session has in flight: who can be cancelled, who takes input.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::Kind;
use api::rpc::{Code, Failure, Id};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::input::{self, Inbox, InputSender};

/// Requests of one session at a time. Stops a client from starting commands without end.
pub const MAX_REQUESTS: usize = 256;

/// Requests in flight.
#[derive(Debug)]
pub(crate) struct Requests {
    known: Mutex<HashMap<Id, Known>>,
    /// Held until the answer is on its way: answers take memory, too.
    slots: Arc<Semaphore>,
}

#[derive(Debug)]
struct Known {
    cancel: watch::Sender<bool>,
    input: InputSender,
}

impl Requests {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { known: Mutex::default(), slots: Arc::new(Semaphore::new(MAX_REQUESTS)) })
    }

    /// Makes a request known.
    pub(crate) fn begin(self: &Arc<Self>, id: &Id) -> Result<Begun, Failure> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| {
            let message = format!("more than {MAX_REQUESTS} requests at a time");
            Failure::new(Code::INVALID_REQUEST, Kind::LimitExceeded, message)
                .with_hint("wait for answers before asking for more")
        })?;
        let (cancel, cancelled) = watch::channel(false);
        let (input, inbox) = input::channel();
        match self.known().entry(id.clone()) {
            Entry::Occupied(_) => return Err(Self::conflict(id)),
            Entry::Vacant(entry) => drop(entry.insert(Known { cancel, input })),
        }
        Ok(Begun {
            cancel: Cancel(cancelled),
            inbox,
            registered: Registered { requests: Arc::clone(self), id: id.clone() },
            slot,
        })
    }

    /// The answer to a request whose identifier is taken.
    pub(crate) fn conflict(id: &Id) -> Failure {
        let message = format!("a request with the id {id} is running");
        Failure::new(Code::INVALID_REQUEST, Kind::Conflict, message)
    }

    /// Cancels a request, if it is running.
    pub(crate) fn cancel(&self, id: &Id) -> bool {
        self.known().get(id).is_some_and(|known| known.cancel.send(true).is_ok())
    }

    /// Where the input of a request's command goes, if it is running.
    pub(crate) fn input(&self, id: &Id) -> Option<InputSender> {
        self.known().get(id).map(|known| known.input.clone())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Id, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) cancel: Cancel,
    pub(crate) inbox: Inbox,
    /// To be dropped before the request is answered: then its identifier is free.
    pub(crate) registered: Registered,
    /// To be dropped after that.
    pub(crate) slot: OwnedSemaphorePermit,
}

/// Keeps a request known.
#[derive(Debug)]
pub(crate) struct Registered {
    requests: Arc<Requests>,
    id: Id,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.requests.known().remove(&self.id);
    }
}

/// Whether a request was cancelled.
#[derive(Debug, Clone)]
pub(crate) struct Cancel(watch::Receiver<bool>);

impl Cancel {
    pub(crate) fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is; perhaps for ever.
    pub(crate) async fn cancelled(&self) {
        if self.0.clone().wait_for(|cancelled| *cancelled).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What `future` gives, unless the request is cancelled first.
    pub(crate) async fn or<T>(&self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.cancelled() => Err(Failure::cancelled()),
            result = future => result,
        }
    }
}
