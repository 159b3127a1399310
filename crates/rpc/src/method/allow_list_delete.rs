//! `allow_list_delete`: hosts that the guest may not reach any more.

use api::rpc::AllowListParams;

use super::{Answer, Call};
use crate::host::Host;
use crate::message;

pub(super) async fn run<H: Host>(call: Call<H>) -> Answer {
    let AllowListParams { hosts } = call.params()?;
    Ok(message::to_json(&call.host.disallow(&hosts)?))
}
