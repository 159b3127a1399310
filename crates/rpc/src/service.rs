//! What the sessions of one process share: the host, the methods, and a bound on the memory for
//! collected output.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::host::Host;
use crate::method::Methods;

/// Output that all commands of `exec` together may have collected, bytes. A hostile guest could
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

/// Room for some bytes.
pub(crate) type Room = OwnedSemaphorePermit;

impl Collected {
    /// Room for so many bytes, if there is any.
    pub(crate) fn room(&self, bytes: usize) -> Option<Room> {
        Arc::clone(&self.0).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }
}
