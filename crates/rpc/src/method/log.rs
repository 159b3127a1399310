//! `log`: what there is of the sandbox's log.

use std::time::Duration;

use api::Kind;
use api::rpc::{Code, Failure, LogResult};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::{Answer, Call};
use crate::host::Host;
use crate::message;

/// Most of a log that is given, bytes, from its end: an answer must fit into a line.
const MAX_LOG: usize = 32 * 1024 * 1024;

/// How long to wait for memory that others have.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run<H: Host>(call: Call<H>) -> Answer {
    let read = async {
        if !call.collected.wait_for(MAX_LOG, PATIENCE).await {
            let message = "too many answers of this sandbox's owner wait to be read";
            return Err(Failure::new(Code::INTERNAL, Kind::LimitExceeded, message)
                .with_hint("read them, or use log_stream, which passes the log on as it comes"));
        }
        let log = call.host.log(false).await?;
        tail(log, MAX_LOG).await.map_err(|error| unreadable(&error))
    };
    let content = call.cancel.or(read).await?;
    Ok(message::to_json(&LogResult { content: message::encode(&content) }))
}

/// At most the last `limit` bytes.
async fn tail(mut log: impl AsyncRead + Unpin, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    while log.read_buf(&mut content).await? > 0 {
        if content.len() >= 2 * limit {
            content.drain(..content.len() - limit);
        }
    }
    content.drain(..content.len().saturating_sub(limit));
    Ok(content)
}

/// The log cannot be read.
pub(super) fn unreadable(error: &std::io::Error) -> Failure {
    Failure::new(Code::INTERNAL, Kind::Internal, format!("cannot read the sandbox's log: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_a_long_log_the_end_is_given() {
        let log: Vec<u8> = (0..10_000_u32).map(|at| (at % 251) as u8).collect();
        assert_eq!(tail(&log[..], 20_000).await.unwrap(), log);
        for limit in [0, 1, 100, 9_999] {
            assert_eq!(tail(&log[..], limit).await.unwrap(), log[log.len() - limit..]);
        }
    }
}
