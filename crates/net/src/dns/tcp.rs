//! DNS over TCP, RFC 7766: messages with their length before them.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::Service;
use super::query::MAX_QUERY;

/// How long the guest may take to ask, or to take an answer. Connections would otherwise pile up.
const IDLE: Duration = Duration::from_secs(10);

/// Queries of one connection, so that none is kept for ever.
const MAX_MESSAGES: usize = 256;

impl Service {
    /// Answers the queries of one connection, until the guest ends it or sends what is no query.
    pub async fn serve_tcp<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) {
        for _ in 0..MAX_MESSAGES {
            let Ok(Some(query)) = timeout(IDLE, read(&mut stream)).await else { break };
            let Some(answer) = self.answer(&query, true).await else { break };
            let Ok(length) = u16::try_from(answer.len()) else { break };
            let framed = [&length.to_be_bytes()[..], &answer].concat();
            if !matches!(timeout(IDLE, stream.write_all(&framed)).await, Ok(Ok(()))) {
                break;
            }
        }
        // It may be gone already, or not want to hear of the end.
        let _ = timeout(IDLE, stream.shutdown()).await;
    }
}

/// The next query; `None` at the end, and if it is longer than any.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = usize::from(stream.read_u16().await.ok()?);
    if length > MAX_QUERY {
        return None;
    }
    let mut query = vec![0; length];
    stream.read_exact(&mut query).await.ok()?;
    Some(query)
}
