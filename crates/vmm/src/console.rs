//! What a machine says: the guest's console and the VMM's own complaints, kept as a short tail in
//! memory and, if wanted, passed on to a log. The guest may write for ever.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is kept in memory, bytes.
pub const TAIL: usize = 8 * 1024;

/// Takes what the guest's console says, a few KiB at a time. It must not wait for anybody.
pub type Sink = Box<dyn FnMut(&[u8]) + Send>;

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

/// Copies `source` into `tail` and `sink` until its end.
pub(crate) async fn follow(mut source: impl AsyncRead + Unpin, tail: Tail, mut sink: Option<Sink>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = source.read(&mut buffer).await {
        tail.push(&buffer[..read]);
        if let Some(sink) = &mut sink {
            sink(&buffer[..read]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endless_console_is_bounded_in_memory_and_reaches_the_sink_whole() {
        let (mut guest, host) = tokio::io::duplex(64 * 1024);
        let tail = Tail::default();
        let (sent, received) = std::sync::mpsc::channel();
        let sink: Sink = Box::new(move |bytes| sent.send(bytes.len()).unwrap());
        let follower = tokio::spawn(follow(host, tail.clone(), Some(sink)));
        let noise = vec![b'x'; 64 * 1024];
        for _ in 0..16 {
            tokio::io::AsyncWriteExt::write_all(&mut guest, &noise).await.unwrap();
        }
        tokio::io::AsyncWriteExt::write_all(&mut guest, b"\x1b[31mthe\0 end\r\n").await.unwrap();
        drop(guest);
        follower.await.unwrap();
        assert!(tail.text().ends_with("x[31mthe end\n"));
        assert!(tail.text().len() <= TAIL);
        assert_eq!(received.iter().sum::<usize>(), 16 * noise.len() + 15);
    }
}
