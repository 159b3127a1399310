//! A connection that passes although it is not known yet what is spoken on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sniff::{Protocol, classify};

/// A connection whose first line has not ended. What is read of it may be passed on, since no server acts on
/// half a request; that which would make it one, or a hello of TLS, is never read: reading fails instead.
pub(super) struct Watched<S> {
    /// What was read, while that does not tell.
    line: Option<Vec<u8>>,
    inner: S,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { line: Some(Vec::new()), inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = space.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, space);
        if let Some(line) = &mut self.line {
            line.extend_from_slice(&space.filled()[before..]);
            match classify(line) {
                None => {}
                Some(Protocol::Other) => self.line = None,
                Some(_) => {
                    space.set_filled(before);
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "it turned out to be TLS or HTTP after a part of it had been passed on",
                    )));
                }
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What can be read of these pieces, and whether reading failed.
    async fn passed(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut guest, ours) = duplex(64);
        let (mut watched, mut passed) = (Watched::new(ours), Vec::new());
        for piece in pieces {
            guest.write_all(piece).await.unwrap();
            if watched.read_buf(&mut passed).await.is_err() {
                return (passed, true);
            }
        }
        (passed, false)
    }

    #[tokio::test]
    async fn words_without_lines_pass() {
        assert_eq!(passed(&[b"hi", b" there, ", b"you"]).await, (b"hi there, you".to_vec(), false));
        assert!(!passed(&[b"0001", b"\0GET / HTTP/1.1\r\n"]).await.1, "known to be no request");
    }

    #[tokio::test]
    async fn what_completes_a_request_or_a_hello_does_not() {
        assert_eq!(passed(&[b"GE", b"T", b" / HTTP/1.1\r\n"]).await, (b"GET".to_vec(), true));
        assert_eq!(passed(&[b"odd", b" / ", b"HTTP/1.1\r\n"]).await, (b"odd / ".to_vec(), true));
        assert_eq!(passed(&[b"\x16", b"\x03\x01"]).await, (b"\x16".to_vec(), true));
        assert!(passed(&[b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\n"]).await.1);
    }
}
