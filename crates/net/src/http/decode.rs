//! Bodies without their encoding, as they stream by.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder};
use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use policy::response::Coding;
use tokio::io::{AsyncBufRead, AsyncRead, BufReader, ReadBuf};

use super::body::BoxError;

/// Decoded bytes given on at a time.
const CHUNK: usize = 16 * 1024;

/// A body of an upstream, decoded.
pub(super) enum Decoded {
    /// It had no encoding.
    Plain(Incoming),
    /// What is read of it is decoded.
    Coded { reader: Pin<Box<dyn AsyncRead + Send>>, trailers: Trailers, chunk: Box<[u8]> },
}

/// Trailers that came behind the encoded body.
#[derive(Debug, Clone, Default)]
pub(super) struct Trailers(Arc<Mutex<Option<HeaderMap>>>);

impl Trailers {
    fn put(&self, trailers: HeaderMap) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(trailers);
    }

    fn take(&self) -> Option<HeaderMap> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Decoded {
    /// Takes these encodings off, in that order.
    pub(super) fn new(body: Incoming, codings: &[Coding]) -> Self {
        if codings.is_empty() {
            return Self::Plain(body);
        }
        let trailers = Trailers::default();
        let source = Source { body, chunk: Bytes::new(), trailers: trailers.clone() };
        let mut reader: Pin<Box<dyn AsyncBufRead + Send>> = Box::pin(source);
        for coding in codings {
            reader = match coding {
                Coding::Gzip => {
                    let mut decoder = GzipDecoder::new(reader);
                    decoder.multiple_members(true);
                    Box::pin(BufReader::new(decoder))
                }
                Coding::Deflate => Box::pin(BufReader::new(ZlibDecoder::new(reader))),
                Coding::Brotli => Box::pin(BufReader::new(BrotliDecoder::new(reader))),
                Coding::Zstd => {
                    let mut decoder = ZstdDecoder::new(reader);
                    decoder.multiple_members(true);
                    Box::pin(BufReader::new(decoder))
                }
            };
        }
        Self::Coded { reader: Box::pin(reader), trailers, chunk: vec![0; CHUNK].into() }
    }

    /// The next frame.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Self::Plain(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Coded { reader, trailers, chunk } => {
                let mut read = ReadBuf::new(chunk);
                ready!(reader.as_mut().poll_read(cx, &mut read))?;
                let bytes = read.filled();
                Poll::Ready(match bytes {
                    [] => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
                    bytes => Some(Ok(Frame::data(Bytes::copy_from_slice(bytes)))),
                })
            }
        }
    }

    /// The next frame.
    pub(super) fn frame(&mut self) -> impl Future<Output = Option<Result<Frame<Bytes>, BoxError>>> + Send {
        std::future::poll_fn(|cx| self.poll_frame(cx))
    }
}

/// The bytes of a body for a decoder.
struct Source {
    body: Incoming,
    chunk: Bytes,
    trailers: Trailers,
}

impl AsyncBufRead for Source {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.chunk.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else { break };
            match frame.map_err(io::Error::other)?.into_data() {
                Ok(data) => this.chunk = data,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        this.trailers.put(trailers);
                    }
                }
            }
        }
        Poll::Ready(Ok(&this.chunk))
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        self.get_mut().chunk.advance(count);
    }
}

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(cx))?;
        let count = bytes.len().min(to.remaining());
        to.put_slice(&bytes[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}
