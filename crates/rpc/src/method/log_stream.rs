//! `log_stream`: the log as it is and as it grows, until the request is cancelled or the sandbox
//! ends.

use tokio::io::AsyncReadExt as _;

use super::log::unreadable;
use super::{Answer, Call};
use crate::command::MAX_BATCH;
use crate::host::Host;
use crate::message::DataLines;

pub(super) async fn run<H: Host>(call: Call<H>) -> Answer {
    let lines = DataLines::new(None, "log_stream.data", &call.id);
    let follow = async {
        let mut log = call.host.log(true).await?;
        let mut buffer = vec![0; MAX_BATCH];
        loop {
            let length = log.read(&mut buffer).await.map_err(|error| unreadable(&error))?;
            if length == 0 {
                return Ok("{}".to_owned());
            }
            call.outgoing.send(lines.line(&buffer[..length])).await?;
        }
    };
    call.cancel.or(follow).await
}
