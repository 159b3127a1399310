//! What a machine says: the guest's console and the VMM's own complaints, kept as a short tail in
//! memory and, if wanted, in a log file of bounded size. The guest may write for ever.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is kept in memory, bytes.
pub const TAIL: usize = 8 * 1024;

/// Size at which the log file is put aside, bytes; so twice this is the most a sandbox's console
/// takes on disk.
pub const LOG_LIMIT: u64 = 4 * 1024 * 1024;

/// The end of what was said, shared with whoever writes it.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    bytes: Arc<Mutex<VecDeque<u8>>>,
}

impl Tail {
    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut kept = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let new = &bytes[bytes.len().saturating_sub(TAIL)..];
        let excess = (kept.len() + new.len()).saturating_sub(TAIL);
        kept.drain(..excess);
        kept.extend(new);
    }

    /// The last [`TAIL`] bytes as text: control characters other than line feeds and tabs are
    /// left out, so that a hostile guest cannot play with the terminal that shows it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut kept = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(kept.make_contiguous());
        text.chars().filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t')).collect()
    }
}

/// Copies `source` into `tail` and `log` until its end. A log that cannot be written (disk full)
/// is given up; the guest must never be blocked by it.
pub(crate) async fn follow(mut source: impl AsyncRead + Unpin, tail: Tail, mut log: Option<Log>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = source.read(&mut buffer).await {
        tail.push(&buffer[..read]);
        if let Some(Err(error)) = log.as_mut().map(|log| log.write(&buffer[..read])) {
            tracing::warn!(%error, "console log given up");
            log = None;
        }
    }
}

/// A log file with one predecessor.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    written: u64,
}

impl Log {
    /// Starts a new log at `path`, readable by its owner only.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { path: path.to_owned(), file, written: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.written >= LOG_LIMIT {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            std::fs::rename(&self.path, aside)?;
            *self = Self::create(&self.path)?;
        }
        self.file.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endless_console_is_bounded_in_memory_and_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let (mut guest, host) = tokio::io::duplex(64 * 1024);
        let tail = Tail::default();
        let log = Log::create(&path).unwrap();
        let follower = tokio::spawn(follow(host, tail.clone(), Some(log)));
        let noise = vec![b'x'; 64 * 1024];
        for _ in 0..(3 * LOG_LIMIT / noise.len() as u64) {
            tokio::io::AsyncWriteExt::write_all(&mut guest, &noise).await.unwrap();
        }
        tokio::io::AsyncWriteExt::write_all(&mut guest, b"\x1b[31mthe\0 end\r\n").await.unwrap();
        drop(guest);
        follower.await.unwrap();
        assert!(tail.text().ends_with("x[31mthe end\n"));
        assert!(tail.text().len() <= TAIL);
        let files: Vec<u64> =
            folder.path().read_dir().unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(files.len(), 2);
        assert!(files.iter().all(|size| *size <= LOG_LIMIT + 16 * 1024), "{files:?}");
    }
}
