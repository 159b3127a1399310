//! `cancel`: the end of another request of the same session. It is answered at once; the other
//! request answers when it has ended.

use api::rpc::{CancelResult, Target};

use super::Answer;
use crate::message;
use crate::requests::Requests;

pub(crate) fn run(params: &str, requests: &Requests) -> Answer {
    let Target { id } = message::params("cancel", params)?;
    Ok(message::to_json(&CancelResult { cancelled: requests.cancel(&id) }))
}
