//! The connections to upstreams that one connection of a guest uses: as many as it has requests under way
//! over HTTP/1, one a host over HTTP/2. Each belongs to the host and port of a permit, and is used for
//! nothing else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy::{Host, Permit};
use thiserror::Error;
use tokio::task::JoinHandle;

use super::body::Upload;
use super::{CONNECTION_WINDOW, MAX_HEADER_LIST, SEND_BUFFER, STREAM_WINDOW};
use crate::connect::{Alpn, Connect, ConnectError, Connected};

/// The most idle connections kept: a guest that goes from host to host must not hold all of them.
const MAX_IDLE: usize = 8;

/// How often a request that was not sent is tried again on another connection.
const MAX_TRIES: usize = 3;

/// How long to wait for a used connection to be ready again; its last answer was read to the end.
const READY: Duration = Duration::from_millis(50);

/// A request got no answer.
#[derive(Debug, Error)]
pub(super) enum SendError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke off, or what came on it is no HTTP.
    #[error("it broke off")]
    Http(#[source] hyper::Error),
    /// It speaks HTTP/2 only.
    #[error("it offers no WebSockets over HTTP/1.1")]
    NoUpgrade,
}

/// The connections.
pub(super) struct Pool {
    connect: Arc<dyn Connect>,
    tls: bool,
    /// What the guest speaks.
    alpn: Alpn,
    first: Mutex<Option<(Permit, Connected)>>,
    idle: Mutex<Vec<(Key, Http1)>>,
    /// Held while a connection is made, so that the first requests of a guest do not each make one.
    shared: tokio::sync::Mutex<Vec<(Key, Http2)>>,
}

type Key = (Host, u16);

/// A connection of HTTP/1.
struct Http1 {
    sender: http1::SendRequest<Upload>,
    _driver: Driver,
}

/// A connection of HTTP/2.
#[derive(Clone)]
struct Http2 {
    sender: http2::SendRequest<Upload>,
    driver: Arc<Driver>,
}

/// The task that moves a connection's bytes. It ends with whoever holds this.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection while it is used for one request.
pub(super) struct Lease(Leased);

enum Leased {
    Http1 {
        pool: Arc<Pool>,
        key: Key,
        connection: Http1,
    },
    /// Only to keep the connection alive.
    Http2 {
        _driver: Arc<Driver>,
    },
}

impl Lease {
    /// Gives the connection back: the answer was read to its end.
    pub(super) fn give_back(self) {
        if let Leased::Http1 { pool, key, connection } = self.0
            && !connection.sender.is_closed()
        {
            let mut idle = lock(&pool.idle);
            if idle.len() == MAX_IDLE {
                idle.remove(0);
            }
            idle.push((key, connection));
        }
    }
}

enum Connection {
    Http1(Http1),
    Http2(Http2),
}

impl Pool {
    pub(super) fn new(
        connect: Arc<dyn Connect>,
        tls: bool,
        alpn: Alpn,
        first: Option<(Permit, Connected)>,
    ) -> Arc<Self> {
        Arc::new(Self {
            connect,
            tls,
            alpn,
            first: Mutex::new(first),
            idle: Mutex::new(Vec::new()),
            shared: tokio::sync::Mutex::new(Vec::new()),
        })
    }

    /// Sends a request to where its permit says, and waits for the head of the answer. It is sent once:
    /// only what certainly did not leave is tried again.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<Upload>,
        permit: &Permit,
        upgrade: bool,
    ) -> Result<(Response<Incoming>, Lease), SendError> {
        let target = request.uri().clone();
        let key: Key = (permit.host().clone(), permit.port());
        let mut tries = 0;
        loop {
            tries += 1;
            let fresh_only = tries == MAX_TRIES;
            let (connection, is_fresh) = self.connection(permit, &key, upgrade, fresh_only).await?;
            let (sent, lease) = match connection {
                Connection::Http1(mut connection) => {
                    for_http1(&mut request, &target, upgrade);
                    let sent = connection.sender.try_send_request(request).await;
                    (sent, Leased::Http1 { pool: Arc::clone(self), key: key.clone(), connection })
                }
                Connection::Http2(_) if upgrade => return Err(SendError::NoUpgrade),
                Connection::Http2(mut connection) => {
                    for_http2(&mut request, &target);
                    let sent = connection.sender.try_send_request(request).await;
                    (sent, Leased::Http2 { _driver: connection.driver })
                }
            };
            match sent {
                Ok(response) => return Ok((response, Lease(lease))),
                Err(error) => request = unsent(error, is_fresh)?,
            }
        }
    }

    async fn connection(
        &self,
        permit: &Permit,
        key: &Key,
        upgrade: bool,
        fresh_only: bool,
    ) -> Result<(Connection, bool), SendError> {
        if !fresh_only && let Some(connection) = self.take_idle(key).await {
            return Ok((Connection::Http1(connection), false));
        }
        if upgrade {
            let first = self.take_first(permit, upgrade);
            return self.make(permit, upgrade, first).await.map(|connection| (connection, true));
        }
        let mut shared = self.shared.lock().await;
        shared.retain(|(_, connection)| !connection.sender.is_closed());
        if !fresh_only && let Some((_, connection)) = shared.iter().find(|(other, _)| other == key) {
            return Ok((Connection::Http2(connection.clone()), false));
        }
        let first = self.take_first(permit, upgrade);
        let connection = self.make(permit, upgrade, first).await?;
        if let Connection::Http2(connection) = &connection {
            if shared.len() == MAX_IDLE {
                shared.remove(0);
            }
            shared.push((key.clone(), connection.clone()));
        }
        Ok((connection, true))
    }

    async fn take_idle(&self, key: &Key) -> Option<Http1> {
        loop {
            let mut connection = {
                let mut idle = lock(&self.idle);
                let at = idle.iter().rposition(|(other, _)| other == key)?;
                idle.remove(at).1
            };
            // The task that drives it may not have seen yet that the last request is over.
            if let Ok(Ok(())) = tokio::time::timeout(READY, connection.sender.ready()).await {
                return Some(connection);
            }
        }
    }

    fn take_first(&self, permit: &Permit, upgrade: bool) -> Option<Connected> {
        let mut first = lock(&self.first);
        let (made_for, (_, alpn)) = first.as_ref()?;
        let fits = made_for.host() == permit.host() && made_for.port() == permit.port();
        if !fits || (upgrade && *alpn == Alpn::Http2) {
            return None;
        }
        first.take().map(|(_, connected)| connected)
    }

    async fn make(
        &self,
        permit: &Permit,
        upgrade: bool,
        first: Option<Connected>,
    ) -> Result<Connection, SendError> {
        let alpn = if upgrade { Alpn::Http1 } else { self.alpn };
        let (io, alpn) = match first {
            Some(first) => first,
            None => self.connect.connect(permit, self.tls, alpn).await?,
        };
        match alpn {
            Alpn::Http1 => {
                let (sender, connection) =
                    http1::handshake(TokioIo::new(io)).await.map_err(SendError::Http)?;
                // Its failures are those of the requests on it.
                let driver = Driver(tokio::spawn(async { drop(connection.with_upgrades().await) }));
                Ok(Connection::Http1(Http1 { sender, _driver: driver }))
            }
            Alpn::Http2 => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .max_header_list_size(MAX_HEADER_LIST)
                    .max_send_buf_size(SEND_BUFFER)
                    .handshake(TokioIo::new(io))
                    .await
                    .map_err(SendError::Http)?;
                let driver = Driver(tokio::spawn(async { drop(connection.await) }));
                Ok(Connection::Http2(Http2 { sender, driver: Arc::new(driver) }))
            }
        }
    }
}

/// The request, if it did not leave and a connection that was used before is to blame.
fn unsent(mut error: TrySendError<Request<Upload>>, is_fresh: bool) -> Result<Request<Upload>, SendError> {
    match error.take_message() {
        Some(request) if !is_fresh => Ok(request),
        _ => Err(SendError::Http(error.into_error())),
    }
}

/// Target and headers as HTTP/1.1 has them.
fn for_http1(request: &mut Request<Upload>, target: &Uri, upgrade: bool) {
    *request.version_mut() = Version::HTTP_11;
    let path = target.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    let (method, is_empty) = (request.method().clone(), request.body().is_end_stream());
    let headers = request.headers_mut();
    if let Some(Ok(authority)) = target.authority().map(|authority| authority.as_str().parse()) {
        headers.insert(header::HOST, authority);
    }
    if headers.get_all(header::COOKIE).iter().nth(1).is_some() {
        // HTTP/2 may cut cookies into pieces, HTTP/1 may not (RFC 9113, 8.2.3).
        let cookies: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(mut cookies) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
            cookies.set_sensitive(true);
            headers.insert(header::COOKIE, cookies);
        }
    }
    if is_empty && [Method::POST, Method::PUT, Method::PATCH].contains(&method) {
        // Many servers want to hear it (RFC 9110, 8.6).
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// Target and headers as HTTP/2 has them.
fn for_http2(request: &mut Request<Upload>, target: &Uri) {
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = target.clone();
    request.headers_mut().remove(header::HOST);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
