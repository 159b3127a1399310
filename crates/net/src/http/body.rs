//! The bodies on both ways. They stream: at any time there is one piece in memory, unless a rule needs all.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use policy::body::Filter;
use policy::secret::Masker;
use thiserror::Error;

use super::decode::Decoded;
use super::pool::Lease;
use super::record::Record;
use super::revoke::Revoked;

/// What bodies fail with.
pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// The policy no longer permits what is under way.
#[derive(Debug, Error)]
#[error("it is no longer allowed")]
pub(super) struct NoLongerAllowed;

/// The body of a request, on its way to an upstream.
pub(super) struct Upload {
    body: Incoming,
    revoked: Revoked,
    record: Record,
}

impl Upload {
    pub(super) fn new(body: Incoming, revoked: Revoked, record: Record) -> Self {
        Self { body, revoked, record }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.revoked.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(NoLongerAllowed.into())));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            this.record.sent(frame.data_ref().map_or(0, Bytes::len));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer to the guest.
pub(super) enum Answer {
    /// All of it is here.
    Whole(Option<Bytes>, Option<HeaderMap>),
    /// It comes of an upstream.
    Relay(Box<Relay>),
}

impl Answer {
    /// All of it.
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()).filter(|bytes| !bytes.is_empty()), None)
    }
}

/// A body on its way from an upstream to the guest.
pub(super) struct Relay {
    pub(super) source: Source,
    pub(super) masker: Option<Masker>,
    pub(super) revoked: Revoked,
    pub(super) record: Record,
    /// The connection it comes from, given back at its end.
    pub(super) lease: Option<Lease>,
}

/// What a body comes of.
pub(super) enum Source {
    /// It stays as it is.
    AsIs(Incoming),
    /// It is changed as it streams by.
    Changed(Changed),
}

/// A body that is changed as it streams by.
pub(super) struct Changed {
    body: Decoded,
    filter: Box<Filter>,
    state: State,
}

enum State {
    Streaming,
    /// All was changed; these are left.
    Trailers(Option<HeaderMap>),
}

impl Changed {
    pub(super) fn new(body: Decoded, filter: Box<Filter>) -> Self {
        Self { body, filter, state: State::Streaming }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let State::Trailers(trailers) = &mut self.state {
                return Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let mut out = Vec::new();
            match ready!(self.body.poll_frame(cx)?).map(Frame::into_data) {
                Some(Ok(data)) => self.filter.feed(&data, &mut out)?,
                end => {
                    let trailers = end.and_then(|frame| frame.err()?.into_trailers().ok());
                    self.filter.finish(&mut out)?;
                    self.state = State::Trailers(trailers);
                }
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
    }
}

impl Relay {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(denial) = self.revoked.as_mut().poll(cx) {
            self.record.denied(&denial);
            self.lease = None;
            return Poll::Ready(Some(Err(NoLongerAllowed.into())));
        }
        let frame = match &mut self.source {
            Source::AsIs(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
            Source::Changed(changed) => changed.poll_frame(cx),
        };
        match ready!(frame) {
            None => {
                self.give_back();
                Poll::Ready(None)
            }
            Some(Ok(mut frame)) => {
                self.record.received(frame.data_ref().map_or(0, Bytes::len));
                if let (Some(masker), Some(trailers)) = (&self.masker, frame.trailers_mut()) {
                    masker.headers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.record.failed(format!("the answer broke off: {}", causes(&*error)));
                self.lease = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_at_end(&self) -> bool {
        match &self.source {
            Source::AsIs(body) => body.is_end_stream(),
            Source::Changed(Changed { state, .. }) => matches!(state, State::Trailers(None)),
        }
    }

    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // A body of known length is not asked for its end.
        if self.is_at_end() {
            self.give_back();
        } else if self.lease.is_some() {
            self.record.failed("the guest broke off".to_owned());
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(bytes, trailers) => Poll::Ready(match bytes.take() {
                Some(bytes) => Some(Ok(Frame::data(bytes))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            }),
            Self::Relay(relay) => relay.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes, trailers) => bytes.is_none() && trailers.is_none(),
            Self::Relay(relay) => relay.is_at_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Relay(relay) => match &relay.source {
                Source::AsIs(body) => body.size_hint(),
                Source::Changed(_) => SizeHint::default(),
            },
        }
    }
}

/// An error with what caused it, in one line, but without the words that a peer may end a connection of
/// HTTP/2 with (RFC 9113, 6.8): nobody has looked for values of secrets in them. They are the last in the
/// text, as Rust writes bytes in parentheses.
pub(super) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = api::error::with_causes(error);
    if let Some(words) = text.find(" (b\"") {
        text.truncate(words);
    }
    text
}
