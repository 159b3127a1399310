//! The log at the other end, as it grows.

use tokio::sync::mpsc;

use super::ClientError;
use super::connection::{Connection, Note, Part};

/// The log of a sandbox from its beginning.
#[derive(Debug)]
pub struct LogStream {
    notes: mpsc::Receiver<Note>,
    connection: Connection,
}

pub(super) async fn start(connection: &Connection) -> Result<LogStream, ClientError> {
    let (_, notes) = connection.stream("log_stream", &()).await?;
    Ok(LogStream { notes, connection: connection.clone() })
}

impl LogStream {
    /// The next piece; `None` when the sandbox has ended. Cancel-safe.
    ///
    /// # Errors
    /// When the owner is gone, or cannot read the log.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            return match self.notes.recv().await {
                Some(Note::Data(Part::Log, data)) => Ok(Some(data)),
                Some(Note::Data(..)) => continue,
                Some(Note::Answer(answer)) => Ok(answer.map(|_| None)?),
                None => Err(self.connection.end()),
            };
        }
    }
}
