//! `status`: whom one talks to.

use super::{Answer, Call};
use crate::host::Host;
use crate::message;

pub(super) async fn run<H: Host>(call: Call<H>) -> Answer {
    let status = call.cancel.or(call.host.status()).await?;
    Ok(message::to_json(&status))
}
