//! HTTP between a guest and its upstreams: one pipeline for both versions that asks `policy` about every
//! request and response, and streams what it lets through. What is allowed is not decided here; where
//! something cannot be decided or read, the request ends.

mod answer;
mod body;
mod decode;
mod exchange;
mod guard;
mod guarded;
mod hook;
mod pool;
mod record;
mod revoke;
mod tunnel;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use api::event::NetworkEvent;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy::{Host, Permit, Policy};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::connect::{Alpn, Connect, Io};
use crate::report::Reporter;

pub use guard::{Guard, Violation};

use exchange::Shared;
use guarded::{Control, Guarded};
use pool::Pool;
use record::Record;

/// Bytes that may be on their way in one stream of HTTP/2, and in all streams of a connection together:
/// more than a fast connection over an ocean needs, and the most that a peer can make us hold.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes that wait in one stream of HTTP/2 until the connection takes them: a piece or two, since each has
/// room again once the connection has written it. Stops a peer that reads slowly from making us hold more in
/// every stream.
const SEND_BUFFER: usize = 64 * 1024;

/// The largest head over HTTP/2, as it counts them (RFC 9113, 6.5.2). Stops a peer from making us buffer
/// for ever.
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// The most requests at a time on one connection of HTTP/2.
const MAX_STREAMS: u32 = 128;

/// The most streams that a guest has reset and we have not seen yet. Stops the rapid reset attack
/// (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;

/// The most streams that we reset for a guest's mistakes before the connection ends. Stops the same attack
/// by way of our own resets (CVE-2025-8671).
const MAX_OWN_RESETS: usize = 128;

/// What one connection of a guest needs.
pub(crate) struct Session {
    /// The policy, whatever it is at the time.
    pub(crate) policy: watch::Receiver<Policy>,
    /// The name in the guest's ClientHello, if the connection is TLS.
    pub(crate) https: Option<Host>,
    /// Where the guest connected to.
    pub(crate) destination: SocketAddr,
    /// Who connects to upstreams.
    pub(crate) upstream: Arc<dyn Connect>,
    /// Who is told of every request.
    pub(crate) reporter: Reporter,
    /// Who answers callbacks of rules.
    pub(crate) callback_socket: Option<PathBuf>,
    /// A connection that was already made, to find out what the upstream speaks.
    pub(crate) first: Option<(Permit, Box<dyn Io>, Alpn)>,
}

/// Serves one connection of a guest until it ends. Whatever it started ends with it.
pub(crate) async fn serve<S>(guest: S, version: Alpn, session: Session)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Session { policy, https, destination, upstream, reporter, callback_socket, first } = session;
    let first = first.map(|(permit, io, alpn)| (permit, (io, alpn)));
    let pool = Pool::new(upstream, https.is_some(), version, first);
    let control = Arc::new(Control::default());
    let shared = Arc::new(Shared {
        policy,
        https,
        destination,
        reporter,
        callback_socket,
        pool,
        control,
        tunnel: Mutex::default(),
        refused: Mutex::default(),
    });
    match version {
        Alpn::Http1 => serve_http1(guest, shared).await,
        Alpn::Http2 => serve_http2(guest, shared).await,
    }
}

async fn serve_http1<S>(guest: S, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let malformed = answer::malformed(&shared.malformed());
    let guest = Guarded::new(guest, Arc::clone(&shared.control), malformed);
    let handle = {
        let shared = Arc::clone(&shared);
        service_fn(move |request| {
            let answer = Arc::clone(&shared).handle(request);
            async { Ok::<_, Infallible>(answer.await) }
        })
    };
    let connection = http1::Builder::new()
        // Clients may be done with sending before they are done.
        .half_close(true)
        // A guest that says nothing holds nothing but its own flow.
        .header_read_timeout(None)
        .max_headers(guard::MAX_FIELDS)
        .max_header_size(guard::MAX_HEAD)
        .serve_connection(TokioIo::new(guest), handle)
        .with_upgrades();
    let ended = connection.await;
    if let Some(violation) = shared.control.violation() {
        let denial = shared.malformed();
        tracing::debug!(%violation, host = denial.host, "a guest breaks the rules of HTTP");
        if shared.control.malformed_head() {
            report_malformed(&shared);
        }
    } else if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a guest's connection broke off");
    }
    let tunnel = shared.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tunnel) = tunnel {
        return tunnel.await;
    }
    let refused = shared.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(refused) = refused
        && let Ok(guest) = refused.await
    {
        // A guest that is gone needs no end.
        let _ = TokioIo::new(guest).shutdown().await;
    }
}

async fn serve_http2<S>(guest: S, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handle = service_fn(move |request| {
        let answer = Arc::clone(&shared).handle(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_OWN_RESETS)
        .serve_connection(TokioIo::new(guest), handle);
    if let Err(error) = connection.await {
        tracing::debug!(error = &error as &dyn std::error::Error, "a guest's connection broke off");
    }
}

/// Tells of a head that could not be read as a request.
fn report_malformed(shared: &Shared) {
    let event = NetworkEvent {
        method: "HTTP".to_owned(),
        url: format!("tcp://{}", shared.destination),
        ..NetworkEvent::default()
    };
    Record::of(shared.reporter.clone(), event).denied(&shared.malformed());
}

#[cfg(test)]
mod tests;
