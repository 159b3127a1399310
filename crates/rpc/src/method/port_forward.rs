//! `port_forward`: ports of the guest on the host, for as long as the session lasts.

use api::rpc::{PortForwardParams, PortForwardResult};

use super::{Answer, Call};
use crate::host::Host;
use crate::message;

pub(super) async fn run<H: Host>(call: Call<H>) -> Answer {
    let wanted: PortForwardParams = call.params()?;
    let publish = async {
        let mut published = call.published.lock().await;
        // First, because the new set may want the same ports.
        *published = None;
        let (guard, bindings) = call.host.publish(wanted).await?;
        *published = Some(guard);
        Ok(bindings)
    };
    let bindings = call.cancel.or(publish).await?;
    Ok(message::to_json(&PortForwardResult { bindings }))
}
