//! Upstreams that cannot be reached or go away, and a policy that changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use policy::{Entry, Permit};

use super::{Alpn, Connect, ConnectError, Connected, Pieces, World, hello, request, text};
use crate::http::{Session, serve};
use crate::report::Reporter;

fn other(uri: &str) -> Request<Pieces> {
    request("other.example", uri).body(Pieces::of(&[])).unwrap()
}

struct Unreachable(fn() -> ConnectError);

impl Connect for Unreachable {
    fn connect<'a>(
        &'a self,
        _: &'a Permit,
        _: bool,
        _: Alpn,
    ) -> BoxFuture<'a, Result<Connected, ConnectError>> {
        Box::pin(async { Err((self.0)()) })
    }
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_explained() {
    for (error, status) in [
        ((|| ConnectError::TimedOut) as fn() -> ConnectError, StatusCode::GATEWAY_TIMEOUT),
        (|| ConnectError::Dial(std::io::ErrorKind::ConnectionRefused.into()), StatusCode::BAD_GATEWAY),
    ] {
        let world = World::new(hello);
        let (guest, ours) = tokio::io::duplex(4096);
        let session = Session {
            policy: world.policy.subscribe(),
            https: None,
            destination: ([192, 0, 2, 1], 80).into(),
            upstream: Arc::new(Unreachable(error)),
            reporter: Reporter::new(|_| {}),
            callback_socket: None,
            first: None,
        };
        tokio::spawn(serve(ours, Alpn::Http1, session));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(guest)).await.unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(other("/")).await.unwrap();
        assert_eq!(response.status(), status);
        let body = text(response.into_body()).await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["host"], "other.example");
    }
}

#[tokio::test]
async fn an_upstream_that_closes_after_each_answer_is_connected_again() {
    let world = World::new(|_| async {
        Response::builder().header("connection", "close").body(Pieces::of(&[b"hello"])).unwrap()
    });
    let mut guest = world.http1("other.example").await;
    for _ in 0..3 {
        let response = guest.send_request(other("/")).await.unwrap();
        assert_eq!(text(response.into_body()).await, "hello");
        guest.ready().await.unwrap();
    }
    assert_eq!(world.connected().len(), 3);
}

#[tokio::test]
async fn a_request_that_may_have_been_sent_is_not_sent_again() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let world = World::new(move |_| {
        let nth = counter.fetch_add(1, Ordering::Relaxed);
        async move {
            if nth == 1 {
                panic!("the upstream dies with a request");
            }
            Response::new(Pieces::of(&[b"hello"]))
        }
    });
    let mut guest = world.http1("other.example").await;
    let response = guest.send_request(other("/1")).await.unwrap();
    assert_eq!(text(response.into_body()).await, "hello");
    guest.ready().await.unwrap();
    let response = guest.send_request(other("/2")).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn what_is_no_longer_allowed_is_refused_on_open_connections() {
    let world = World::new(hello);
    let mut guest = world.http1("other.example").await;
    let response = guest.send_request(other("/")).await.unwrap();
    assert_eq!(text(response.into_body()).await, "hello");
    guest.ready().await.unwrap();
    let entry: Entry = "other.example".parse().unwrap();
    world.policy.send_modify(|policy| *policy = policy.remove(std::slice::from_ref(&entry)));
    let response = guest.send_request(other("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(text(response.into_body()).await.contains("host_not_allowed"));
    guest.ready().await.unwrap();
    world.policy.send_modify(|policy| *policy = policy.add(&[entry]));
    let response = guest.send_request(other("/")).await.unwrap();
    assert_eq!(text(response.into_body()).await, "hello");
}

#[tokio::test]
async fn an_answer_under_way_ends_when_its_host_is_no_longer_allowed() {
    for version in [Alpn::Http1, Alpn::Http2] {
        let world = World::new(|_| async {
            let (sender, pieces) = Pieces::channel();
            tokio::spawn(async move {
                sender.send(Frame::data(Bytes::from_static(b"first"))).await.unwrap();
                sender.closed().await;
            });
            Response::new(pieces)
        });
        let response = match version {
            Alpn::Http1 => world.http1("other.example").await.send_request(other("/")).await.unwrap(),
            Alpn::Http2 => world
                .http2("other.example")
                .await
                .send_request(super::get("https://other.example/"))
                .await
                .unwrap(),
        };
        let mut body = response.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
        world.policy.send_modify(|policy| *policy = policy.remove(&["other.example".parse().unwrap()]));
        assert!(body.frame().await.unwrap().is_err(), "{version:?}");
        let event = &world.events(1).await[0];
        assert!(event.blocked, "{event:?}");
    }
}

#[tokio::test]
async fn a_request_that_waits_ends_when_its_host_is_no_longer_allowed() {
    let world = World::new(|_| std::future::pending());
    let mut guest = world.http1("other.example").await;
    let response = tokio::spawn(async move { (guest.send_request(other("/")).await, guest) });
    while world.connected().is_empty() {
        tokio::task::yield_now().await;
    }
    world.policy.send_modify(|policy| *policy = policy.remove(&["other.example".parse().unwrap()]));
    let (response, _guest) = response.await.unwrap();
    assert_eq!(response.unwrap().status(), StatusCode::FORBIDDEN);
}
