//! The pipeline between real clients and servers over streams in memory.

mod bodies;
mod connections;
mod hosts;
mod rules;
mod secrets;
mod upgrade;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use api::event::NetworkEvent;
use api::network::{NetworkSpec, RuleSpec, SecretSpec};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy::{Host, Permit, Policy, SecretValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};

use super::{Session, serve};
use crate::connect::{Alpn, Connect, ConnectError, Connected, Io};
use crate::report::Reporter;

const PLACEHOLDER: &str = "SANDBOX_SECRET_00000000000000000000000000000001";
const VALUE: &str = "sk-live/Value+1&2=3";

/// Bytes that a stream in memory holds: small, so that nothing works by being buffered there.
const PIPE: usize = 4096;

type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Pieces>> + Send + Sync>;

/// A body of pieces that come when they are sent.
struct Pieces(mpsc::Receiver<Frame<Bytes>>);

impl Pieces {
    fn channel() -> (mpsc::Sender<Frame<Bytes>>, Self) {
        let (sender, receiver) = mpsc::channel(64);
        (sender, Self(receiver))
    }

    fn of(pieces: &[&[u8]]) -> Self {
        let (sender, body) = Self::channel();
        for piece in pieces {
            sender.try_send(Frame::data(Bytes::copy_from_slice(piece))).unwrap();
        }
        body
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_closed() && self.0.is_empty()
    }
}

/// All upstreams: one handler behind every connection.
struct Upstreams {
    alpn: Option<Alpn>,
    handler: Handler,
    /// Where connections were made to.
    connected: Mutex<Vec<(String, u16, bool)>>,
}

impl Connect for Upstreams {
    fn connect<'a>(
        &'a self,
        permit: &'a Permit,
        tls: bool,
        alpn: Alpn,
    ) -> BoxFuture<'a, Result<Connected, ConnectError>> {
        self.connected.lock().unwrap().push((permit.host().to_string(), permit.port(), tls));
        let alpn = self.alpn.unwrap_or(alpn);
        let (near, far) = duplex(PIPE);
        let handler = Arc::clone(&self.handler);
        let service = service_fn(move |request| {
            let answer = handler(request);
            async { Ok::<_, Infallible>(answer.await) }
        });
        tokio::spawn(async move {
            let far = TokioIo::new(far);
            let served = match alpn {
                Alpn::Http1 => {
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(far, service)
                        .with_upgrades()
                        .await
                }
                Alpn::Http2 => {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(far, service)
                        .await
                }
            };
            drop(served);
        });
        Box::pin(async move { Ok((Box::new(near) as Box<dyn Io>, alpn)) })
    }
}

/// A sandbox: `own.example` has a secret, `other.example` and `plain.example:8080` have none.
struct World {
    policy: watch::Sender<Policy>,
    upstreams: Arc<Upstreams>,
    events: Arc<Mutex<Vec<NetworkEvent>>>,
    callback_socket: Option<std::path::PathBuf>,
}

impl World {
    fn new<F>(handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Pieces>> + Send + 'static,
    {
        Self::with(None, vec![], handler)
    }

    fn with<F>(
        alpn: Option<Alpn>,
        rules: Vec<RuleSpec>,
        handler: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Pieces>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        let upstreams = Upstreams { alpn, handler, connected: Mutex::default() };
        let secret = |host: &str| SecretSpec {
            placeholder: PLACEHOLDER.to_owned(),
            hosts: vec![host.to_owned()],
            mask: true,
        };
        let spec = NetworkSpec {
            allowed_hosts: vec!["other.example".to_owned(), "plain.example:8080".to_owned()],
            secrets: [("KEY".to_owned(), secret("own.example"))].into(),
            rules,
            callback_socket: Some("/configured".into()),
            ..NetworkSpec::default()
        };
        let values = [("KEY".to_owned(), SecretValue::new(VALUE.to_owned()).unwrap())];
        let policy = Policy::compile(&spec, &[], BTreeMap::from(values)).unwrap();
        Self {
            policy: watch::Sender::new(policy),
            upstreams: Arc::new(upstreams),
            events: Arc::default(),
            callback_socket: None,
        }
    }

    /// A connection of the guest's: TLS to this host if there is one.
    fn connect(&self, https: Option<&str>, port: u16, version: Alpn) -> DuplexStream {
        self.connect_by(Arc::clone(&self.upstreams) as Arc<dyn Connect>, https, port, version)
    }

    /// One whose upstreams are others.
    fn connect_by(
        &self,
        upstream: Arc<dyn Connect>,
        https: Option<&str>,
        port: u16,
        version: Alpn,
    ) -> DuplexStream {
        let (guest, ours) = duplex(PIPE);
        let events = Arc::clone(&self.events);
        let session = Session {
            policy: self.policy.subscribe(),
            https: https.map(|host| Host::parse(host).unwrap()),
            destination: ([192, 0, 2, 1], port).into(),
            upstream,
            reporter: Reporter::new(move |event| events.lock().unwrap().push(event)),
            callback_socket: self.callback_socket.clone(),
            first: None,
        };
        tokio::spawn(serve(ours, version, session));
        guest
    }

    async fn http1(&self, host: &str) -> conn::http1::SendRequest<Pieces> {
        let guest = self.connect(Some(host), 443, Alpn::Http1);
        let (sender, connection) = conn::http1::handshake(TokioIo::new(guest)).await.unwrap();
        tokio::spawn(async { drop(connection.with_upgrades().await) });
        sender
    }

    async fn http2(&self, host: &str) -> conn::http2::SendRequest<Pieces> {
        let guest = self.connect(Some(host), 443, Alpn::Http2);
        let (sender, connection) =
            conn::http2::handshake(TokioExecutor::new(), TokioIo::new(guest)).await.unwrap();
        tokio::spawn(async { drop(connection.await) });
        sender
    }

    /// What comes back for these bytes until the connection ends.
    async fn raw(&self, https: Option<&str>, port: u16, bytes: &[u8]) -> String {
        let (mut read, mut write) = tokio::io::split(self.connect(https, port, Alpn::Http1));
        let send = async {
            // The other end may be gone before it has all.
            let _ = write.write_all(bytes).await;
            let _ = write.shutdown().await;
        };
        let mut answer = Vec::new();
        let receive = async { read.read_to_end(&mut answer).await.unwrap() };
        tokio::join!(send, receive);
        String::from_utf8(answer).unwrap()
    }

    fn connected(&self) -> Vec<(String, u16, bool)> {
        self.upstreams.connected.lock().unwrap().clone()
    }

    /// The events, once there are so many.
    async fn events(&self, count: usize) -> Vec<NetworkEvent> {
        loop {
            let events = self.events.lock().unwrap().clone();
            if events.len() >= count {
                return events;
            }
            tokio::task::yield_now().await;
        }
    }
}

fn get(uri: &str) -> Request<Pieces> {
    Request::get(uri).body(Pieces::of(&[])).unwrap()
}

fn request(host: &str, uri: &str) -> http::request::Builder {
    Request::builder().uri(uri).header("host", host)
}

async fn text(body: Incoming) -> String {
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// An upstream that sends back all that it gets: the head as text, then the body.
async fn reflect(request: Request<Incoming>) -> Response<Pieces> {
    let (parts, body) = request.into_parts();
    let mut head = format!("{} {}\n", parts.method, parts.uri);
    for (name, value) in &parts.headers {
        head.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Response::new(Pieces::of(&[head.as_bytes(), &body]))
}

async fn hello(_: Request<Incoming>) -> Response<Pieces> {
    Response::new(Pieces::of(&[b"hello"]))
}

fn trailers(name: &'static str, value: &str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert(name, value.parse().unwrap());
    Frame::trailers(trailers)
}
