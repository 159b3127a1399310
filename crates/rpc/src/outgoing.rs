//! The lines that go out: one writer, which keeps each line whole, and a bounded queue before it,
//! so that whoever produces lines waits for a slow reader.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

/// Bytes that may wait for the reader. A longer line waits alone.
const ROOM: usize = 1024 * 1024;

/// Short lines are written together up to this many bytes.
const BATCH: usize = 64 * 1024;

/// The reader is gone.
#[derive(Debug)]
pub(crate) struct Gone;

/// Where lines are put. Clones are the same queue.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    lines: mpsc::UnboundedSender<Line>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    /// Given back when the line is written.
    room: OwnedSemaphorePermit,
}

impl Outgoing {
    /// Starts the task that writes. It ends when the last clone is dropped and everything is
    /// written, or when the writer fails.
    pub(crate) fn start(writer: impl AsyncWrite + Unpin + Send + 'static) -> (Self, Writing) {
        let (lines, queue) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(ROOM));
        let outgoing = Self { lines, room: Arc::clone(&room) };
        let task = tokio::spawn(async move {
            if let Err(error) = write(writer, queue).await {
                tracing::debug!(%error, "the peer is gone");
            }
            // Who waits for room hears of it.
            room.close();
        });
        (outgoing, Writing(task))
    }

    /// Puts a line, with its end, behind those that wait, once there is room. Cancel-safe.
    pub(crate) async fn send(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        let size = u32::try_from(bytes.len().min(ROOM)).expect("at most ROOM");
        let room = Arc::clone(&self.room).acquire_many_owned(size).await.map_err(|_| Gone)?;
        self.lines.send(Line { bytes, room }).map_err(|_| Gone)
    }

    /// Waits until nobody takes lines any more.
    pub(crate) async fn closed(&self) {
        self.lines.closed().await;
    }
}

/// The task that writes. It ends with this.
#[derive(Debug)]
pub(crate) struct Writing(JoinHandle<()>);

impl Writing {
    /// Waits until all is written, at most so long. Every [`Outgoing`] must have been dropped.
    pub(crate) async fn finish(mut self, patience: Duration) {
        // If it takes longer nobody reads.
        let _ = tokio::time::timeout(patience, &mut self.0).await;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::UnboundedReceiver<Line>,
) -> std::io::Result<()> {
    while let Some(mut line) = queue.recv().await {
        let mut rooms = Vec::new();
        while line.bytes.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            line.bytes.extend_from_slice(&next.bytes);
            rooms.push(next.room);
        }
        rooms.push(line.room);
        writer.write_all(&line.bytes).await?;
        writer.flush().await?;
    }
    writer.shutdown().await
}
