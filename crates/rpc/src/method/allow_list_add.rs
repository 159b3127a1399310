//! `allow_list_add`: hosts that the guest may reach from now on.

use api::rpc::AllowListParams;

use super::{Answer, Call};
use crate::host::Host;
use crate::message;

pub(super) async fn run<H: Host>(call: Call<H>) -> Answer {
    let AllowListParams { hosts } = call.params()?;
    Ok(message::to_json(&call.host.allow(&hosts)?))
}
