//! Refusing a TLS connection so that its user learns why: over HTTP, in the name of the host that the
//! guest asked for, or with an alert where that is not possible.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy::Denial;
use policy::host::Host;
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::connect::{Alpn, Io};
use crate::upstream::DialError;

/// How long a guest may take to ask for what is refused, and to read why.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most bytes of a request's head: it is read only to be refused.
const MAX_HEAD: u32 = 16 * 1024;

/// Requests at once on a connection of HTTP/2.
const MAX_STREAMS: u32 = 16;

/// What is answered to every request.
pub(super) struct Refusal {
    status: StatusCode,
    body: Bytes,
}

impl Refusal {
    /// The policy refuses the host.
    pub(super) fn denied(denial: &Denial) -> Self {
        Self { status: StatusCode::FORBIDDEN, body: denial.body().into() }
    }

    /// The host cannot be connected to.
    pub(super) fn failed(host: &Host, error: &DialError) -> Self {
        if let DialError::Denied(denial) = error {
            return Self::denied(denial);
        }
        let body = json!({ "error": error.to_string(), "host": host.to_string() });
        Self { status: error.status(), body: format!("{body}\n").into() }
    }

    fn response(&self, version: Version) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body.clone()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Answers what is asked on the connection, whose TLS is taken off, and ends it.
    pub(super) async fn answer<S: Io + 'static>(self, guest: S, version: Alpn) {
        let asked = Arc::new(Notify::new());
        let told = Arc::clone(&asked);
        let service = service_fn(move |request: Request<Incoming>| {
            told.notify_one();
            let response = self.response(request.version());
            async move { Ok::<_, Infallible>(response) }
        });
        let io = TokioIo::new(guest);
        // A guest that breaks off has understood.
        let _ = match version {
            Alpn::Http1 => {
                let mut builder = http1::Builder::new();
                builder
                    .keep_alive(false)
                    .half_close(true)
                    .max_header_size(MAX_HEAD as usize)
                    .max_buf_size(MAX_HEAD as usize);
                timeout(PATIENCE, builder.serve_connection(io, service)).await.map(|served| served.is_ok())
            }
            Alpn::Http2 => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.max_header_list_size(MAX_HEAD).max_concurrent_streams(MAX_STREAMS);
                let mut connection = pin!(builder.serve_connection(io, service));
                let mut asked = pin!(asked.notified());
                let mut is_ending = false;
                let served = poll_fn(|cx| {
                    if !is_ending && asked.as_mut().poll(cx).is_ready() {
                        is_ending = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    connection.as_mut().poll(cx).map(|served| served.is_ok())
                });
                timeout(PATIENCE, served).await
            }
        };
    }
}

/// Alerts of TLS, RFC 8446, 6.
#[derive(Debug, Clone, Copy)]
pub(super) enum Alert {
    AccessDenied = 49,
    DecodeError = 50,
}

/// Ends a connection on which the guest has just said its hello.
pub(super) async fn alert<S: AsyncWrite + Unpin>(mut guest: S, alert: Alert) {
    const FATAL: u8 = 2;
    let record = [21, 3, 3, 0, 2, FATAL, alert as u8];
    // Nobody is left to be told if it fails.
    let _ = timeout(PATIENCE, async {
        guest.write_all(&record).await?;
        guest.shutdown().await
    })
    .await;
}
