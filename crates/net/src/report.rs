//! Telling what the guest did on the network, without ever waiting for whoever listens.

use std::fmt;
use std::sync::Arc;

use api::event::NetworkEvent;

/// Where events go.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(NetworkEvent) + Send + Sync>);

impl Reporter {
    /// `listener` is called on the thread on which the event happens: it must not block.
    pub fn new(listener: impl Fn(NetworkEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Tells of something that is over, or was refused.
    pub fn report(&self, event: NetworkEvent) {
        (self.0)(event);
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}
