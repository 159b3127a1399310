//! The end of what the user no longer allows while it is under way.

use std::future::Future;
use std::pin::Pin;

use policy::{Denial, Permit, Policy};
use tokio::sync::watch;

/// Ready as soon as the policy no longer permits something.
pub(super) type Revoked = Pin<Box<dyn Future<Output = Denial> + Send>>;

/// Watches whether a policy still permits this.
pub(super) fn revoked(mut policy: watch::Receiver<Policy>, permit: &Permit) -> Revoked {
    let (host, port) = (permit.host().clone(), permit.port());
    Box::pin(async move {
        loop {
            let decision = policy.borrow_and_update().host(&host, port);
            if let Err(denial) = decision {
                return denial;
            }
            if policy.changed().await.is_err() {
                // Nobody can change it any more; the end of the network ends the connection too.
                std::future::pending::<()>().await;
            }
        }
    })
}
