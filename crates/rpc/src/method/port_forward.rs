//! `port_forward`: ports of the guest on the host, for as long as the session lasts.

use api::forward::DEFAULT_ADDRESS;
use api::rpc::{Code, Failure, PortForwardParams, PortForwardResult};

use super::{Answer, Call};
use crate::host::Host;
use crate::message;

pub(super) async fn run<H: Host>(call: Call<H>) -> Answer {
    let wanted: PortForwardParams = call.params()?;
    let publish = async {
        let addresses = wanted.addresses.unwrap_or_else(|| vec![DEFAULT_ADDRESS]);
        let mut published = call.published.lock().await;
        let publisher = match &mut *published {
            Some(publisher) => publisher,
            none => none.insert(call.host.publisher()?),
        };
        let bindings = publisher.replace(&wanted.forwards, &addresses);
        bindings.map_err(|error| Failure::of(Code::INVALID_PARAMS, &error))
    };
    let bindings = call.cancel.or(publish).await?;
    Ok(message::to_json(&PortForwardResult { bindings }))
}
