//! Telling what the guest did on the network, without ever waiting for whoever listens.

use std::fmt;
use std::sync::Arc;

use api::event::NetworkEvent;
use policy::Denial;

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

/// Says in an event that it was refused, and why.
pub(crate) fn refused(event: &mut NetworkEvent, denial: &Denial) {
    event.blocked = true;
    event.block_reason = Some(denial.message());
    event.block_code = Some(denial.reason.code().to_owned());
    event.rule.clone_from(&denial.rule);
    event.remedy = denial.entry();
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}
