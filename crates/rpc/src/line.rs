//! Lines from a reader, bounded: one message each.

use std::io;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest line, bytes, without its end: the content of a large file in base64 fits. Stops a
/// peer from making us buffer for ever.
pub const MAX_LINE: usize = 64 * 1024 * 1024;

/// Bytes asked for at a time: a whole record of output.
const CHUNK: usize = 256 * 1024;

/// A buffer that a long line has made larger than this is given back after it.
const KEEP: usize = 1024 * 1024;

/// How far to read ahead while looking for the end: more than the kernel keeps of what a peer that
/// is gone has written to a socket or pipe.
const READ_AHEAD: usize = 4 * 1024 * 1024;

/// There is no next line.
#[derive(Debug, Error)]
pub(crate) enum LineError {
    /// Over [`MAX_LINE`].
    #[error("a line is longer than {0} bytes")]
    TooLong(usize),
    /// The transport failed.
    #[error("the connection broke off")]
    Io(#[from] io::Error),
}

/// Splits what a reader gives into lines.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// How far beyond `start` there is no line end.
    searched: usize,
    limit: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self::with_limit(reader, MAX_LINE)
    }

    fn with_limit(reader: R, limit: usize) -> Self {
        Self { reader, buffer: Vec::new(), start: 0, searched: 0, limit }
    }

    /// The next line without its end; `None` at the end of the input, where an unfinished line is
    /// dropped. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        let length = loop {
            let unread = &self.buffer[self.start..];
            let found = memchr::memchr(b'\n', &unread[self.searched..]);
            if let Some(at) = found {
                break self.searched + at;
            }
            self.searched = unread.len();
            if unread.len() > self.limit {
                return Err(LineError::TooLong(self.limit));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        };
        if length > self.limit {
            return Err(LineError::TooLong(self.limit));
        }
        let line = self.start..self.start + length;
        self.start = line.end + 1;
        self.searched = 0;
        Ok(Some(&self.buffer[line]))
    }

    /// Waits until the peer is gone, while its lines have to wait: reads ahead as far as is needed
    /// to see the end behind what is left of it. Cancel-safe.
    pub(crate) async fn ended(&mut self) {
        while self.buffer.len() - self.start < READ_AHEAD {
            if !self.fill().await.is_ok_and(|read| read > 0) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let unread = self.buffer.len() - self.start;
        if unread == 0 {
            self.buffer.clear();
            self.start = 0;
            if self.buffer.capacity() > KEEP {
                self.buffer = Vec::new();
            }
        }
        if self.buffer.capacity() - self.buffer.len() < CHUNK / 4 {
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.buffer.capacity() - self.buffer.len() < CHUNK / 4 {
                self.buffer.reserve_exact(unread.max(CHUNK));
            }
        }
        self.reader.read_buf(&mut self.buffer).await
    }
}

#[cfg(test)]
mod tests;
