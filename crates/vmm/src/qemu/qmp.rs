//! A client for the little we need of QEMU's monitor: the handshake, `quit`, and why it shut down.
//! Protocol: `docs/interop/qmp-spec.rst` of QEMU. The VMM may be in the guest's hands: what it
//! says is bounded and never trusted with more than a log line.

use std::io;

use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Notify;

/// The longest line of the monitor, bytes; QEMU's greeting has about 150.
const MAX_LINE: u64 = 64 * 1024;

/// The monitor is of no use any more.
#[derive(Debug, Error)]
pub(crate) enum QmpError {
    /// It was closed, as it is when QEMU ends.
    #[error("the monitor was closed")]
    Closed,
    /// The socket failed.
    #[error("the monitor failed")]
    Io(#[from] io::Error),
    /// A line over [`MAX_LINE`].
    #[error("the monitor sent a line of more than {MAX_LINE} bytes")]
    TooLong,
    /// Not a message of the protocol.
    #[error("the monitor sent something else than QMP")]
    Malformed(#[from] serde_json::Error),
    /// A command was refused.
    #[error("the monitor refused a command: {0}")]
    Refused(String),
}

/// One line from QEMU.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Message {
    Greeting {
        #[serde(rename = "QMP")]
        _qmp: serde::de::IgnoredAny,
    },
    Event {
        event: String,
        #[serde(default)]
        data: serde_json::Value,
    },
    Error {
        error: ErrorData,
    },
    Return {
        #[serde(rename = "return")]
        _value: serde::de::IgnoredAny,
    },
}

#[derive(Debug, Deserialize)]
struct ErrorData {
    desc: String,
}

/// Drives the monitor until QEMU closes it: shakes hands, then tells QEMU to quit when `quit`
/// says so.
pub(crate) async fn monitor(stream: impl AsyncRead + AsyncWrite, quit: &Notify) -> QmpError {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut lines = Lines { reader: BufReader::new(reader), line: Vec::new() };
    // A command before the handshake's end would be refused.
    let mut ready = false;
    loop {
        // Reading a line is cancel-safe, its beginning is kept.
        let message = tokio::select! {
            message = lines.next() => message,
            () = quit.notified(), if ready => {
                match writer.write_all(QUIT).await {
                    Ok(()) => continue,
                    Err(error) => return error.into(),
                }
            }
        };
        let done = match message {
            Ok(Message::Greeting { .. }) => writer.write_all(CAPABILITIES).await.map_err(QmpError::from),
            Ok(Message::Event { event, data }) => {
                tracing::debug!(event, %data, "QEMU");
                Ok(())
            }
            Ok(Message::Return { .. }) => {
                ready = true;
                Ok(())
            }
            Ok(Message::Error { error }) => Err(QmpError::Refused(error.desc)),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            return error;
        }
    }
}

const CAPABILITIES: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n";
const QUIT: &[u8] = b"{\"execute\":\"quit\"}\n";

struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    async fn next(&mut self) -> Result<Message, QmpError> {
        let left = MAX_LINE.saturating_sub(self.line.len() as u64);
        (&mut self.reader).take(left).read_until(b'\n', &mut self.line).await?;
        match self.line.last() {
            Some(b'\n') => {}
            _ if self.line.len() as u64 >= MAX_LINE => return Err(QmpError::TooLong),
            _ => return Err(QmpError::Closed),
        }
        let message = serde_json::from_slice(&self.line);
        self.line.clear();
        Ok(message?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{DuplexStream, duplex};
    use tokio::time::timeout;

    use super::*;

    async fn line(qemu: &mut DuplexStream) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.push(qemu.read_u8().await.unwrap());
        }
        String::from_utf8(line).unwrap()
    }

    const GREETING: &[u8] =
        b"{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7}}, \"capabilities\": [\"oob\"]}}\r\n";

    #[tokio::test]
    async fn quit_waits_for_the_handshake_and_events_may_come_in_between() {
        let (mut qemu, ours) = duplex(4096);
        let quit = Notify::new();
        quit.notify_one();
        let fake = async {
            qemu.write_all(GREETING).await.unwrap();
            assert_eq!(line(&mut qemu).await, "{\"execute\":\"qmp_capabilities\"}\n");
            qemu.write_all(b"{\"timestamp\": {}, \"event\": \"RESUME\"}\r\n{\"return\": {}}\r\n")
                .await
                .unwrap();
            assert_eq!(line(&mut qemu).await, "{\"execute\":\"quit\"}\n");
            qemu.write_all(b"{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": false}}\r\n{\"ret")
                .await
                .unwrap();
            drop(qemu);
        };
        let (end, ()) = tokio::join!(timeout(Duration::from_secs(10), monitor(ours, &quit)), fake);
        assert!(matches!(end, Ok(QmpError::Closed)), "{end:?}");
    }

    #[tokio::test]
    async fn a_monitor_in_the_guests_hands_is_given_up() {
        let endless = vec![b'x'; MAX_LINE as usize + 1];
        let refusal = b"{\"error\": {\"class\": \"x\", \"desc\": \"no\"}}\n";
        let hostile = [
            (&b"garbage\n"[..], "QMP"),
            (b"{\"event\": 7}\n", "QMP"),
            (refusal, "refused a command: no"),
            (&endless, "a line of more"),
            (b"", "closed"),
        ];
        for (bytes, expected) in hostile {
            let (mut qemu, ours) = duplex(128 * 1024);
            qemu.write_all(bytes).await.unwrap();
            drop(qemu);
            let end = timeout(Duration::from_secs(10), monitor(ours, &Notify::new())).await.unwrap();
            assert!(end.to_string().contains(expected), "{end:?}");
        }
    }
}
