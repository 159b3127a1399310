//! Bodies stream, both ways, with their trailers, whatever their size.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Alpn, Pieces, World, get, hello, request, text, trailers};
use crate::http::SEND_BUFFER;

#[tokio::test]
async fn grpc_with_its_trailers_passes_both_ways() {
    for alpn in [Alpn::Http1, Alpn::Http2] {
        let world = World::with(Some(alpn), vec![], |request: Request<_>| async move {
            assert_eq!(request.headers()["te"], "trailers");
            let mut body: hyper::body::Incoming = request.into_body();
            let (sender, pieces) = Pieces::channel();
            tokio::spawn(async move {
                let mut sum = String::from("none");
                while let Some(frame) = body.frame().await {
                    match frame.unwrap().into_data() {
                        Ok(data) => sender.send(Frame::data(data)).await.unwrap(),
                        Err(frame) => {
                            sum = frame.into_trailers().unwrap()["x-sum"].to_str().unwrap().to_owned();
                        }
                    }
                }
                sender.send(trailers("grpc-status", &sum)).await.unwrap();
            });
            Response::builder().header("trailer", "grpc-status").body(pieces).unwrap()
        });
        let mut guest = world.http2("other.example").await;
        let (sender, body) = Pieces::channel();
        let sent = Request::post("https://other.example/Service/Method")
            .header("te", "trailers")
            .header("trailer", "x-sum")
            .body(body)
            .unwrap();
        let response = guest.send_request(sent).await.unwrap();
        let mut echoed = response.into_body();
        for message in ["one", "two"] {
            sender.send(Frame::data(Bytes::from_static(message.as_bytes()))).await.unwrap();
            assert_eq!(echoed.frame().await.unwrap().unwrap().into_data().unwrap(), message);
        }
        sender.send(trailers("x-sum", "7")).await.unwrap();
        drop(sender);
        let end = echoed.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(end["grpc-status"], "7", "{alpn:?}");
    }
}

#[tokio::test]
async fn an_end_that_comes_with_the_head_stays_there() {
    let world = World::with(Some(Alpn::Http2), vec![], |_| async {
        Response::builder().header("grpc-status", "5").body(Pieces::of(&[])).unwrap()
    });
    for host in ["other.example", "own.example"] {
        let response = world.http2(host).await.send_request(get(&format!("https://{host}/"))).await.unwrap();
        assert!(response.body().is_end_stream(), "{host}");
        assert_eq!(response.headers()["grpc-status"], "5");
        assert!(!response.headers().contains_key("content-length"));
    }
}

#[tokio::test]
async fn events_go_on_at_once() {
    for host in ["own.example", "other.example"] {
        let (sender, pieces) = Pieces::channel();
        let body = Mutex::new(Some(pieces));
        let world = World::new(move |_| {
            let body = body.lock().unwrap().take().unwrap();
            async { Response::builder().header("content-type", "text/event-stream").body(body).unwrap() }
        });
        let mut guest = world.http1(host).await;
        let response = guest.send_request(request(host, "/").body(Pieces::of(&[])).unwrap()).await.unwrap();
        let mut events = response.into_body();
        for event in ["data: 1\n\n", "data: 2\n\n"] {
            sender.send(Frame::data(Bytes::from_static(event.as_bytes()))).await.unwrap();
            assert_eq!(events.frame().await.unwrap().unwrap().into_data().unwrap(), event);
        }
        drop(sender);
        assert!(events.frame().await.is_none());
    }
}

#[tokio::test]
async fn a_guest_that_reads_nothing_makes_us_hold_little_for_each_of_its_streams() {
    const STREAMS: usize = 4;
    const PIECE: usize = 16 * 1024;
    let senders = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&senders);
    let world = World::new(move |_| {
        let (sender, pieces) = Pieces::channel();
        all.lock().unwrap().push(sender);
        async { Response::new(pieces) }
    });
    let mut ours = world.connect(Some("other.example"), 443, Alpn::Http2);
    let (guest, mut far) = tokio::io::duplex(4096);
    let mut wire = Box::pin(tokio::io::copy_bidirectional(&mut ours, &mut far));
    let (mut guest, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 24)
        .initial_connection_window_size(1 << 26)
        .handshake(TokioIo::new(guest))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..STREAMS {
        let answer = guest.send_request(get("https://other.example/"));
        tokio::select! {
            answer = answer => answers.push(answer.unwrap()),
            _ = &mut wire => panic!("it ends"),
        }
    }
    // From now on nothing moves on the wire.
    for sender in senders.lock().unwrap().iter() {
        while sender.try_send(Frame::data(Bytes::from(vec![b'x'; PIECE]))).is_ok() {}
    }
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    drop(wire);
    drop(ours);
    for event in world.events(STREAMS).await {
        let taken = usize::try_from(event.response_bytes).unwrap();
        assert!(taken > 0 && taken <= SEND_BUFFER + 2 * PIECE, "{taken}");
    }
}

/// More than all buffers on the way together could hold.
const LARGE: usize = 32 * 1024 * 1024;

#[tokio::test]
async fn large_bodies_stream_with_the_speed_of_their_reader() {
    let produced = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&produced);
    let world = World::new(move |request: Request<hyper::body::Incoming>| {
        let counter = Arc::clone(&counter);
        async move {
            let mut body = request.into_body();
            let mut received = 0;
            while let Some(frame) = body.frame().await {
                received += frame.unwrap().data_ref().map_or(0, Bytes::len);
            }
            assert_eq!(received, LARGE);
            let (sender, pieces) = Pieces::channel();
            tokio::spawn(async move {
                let piece = Bytes::from(vec![b'x'; 64 * 1024]);
                for _ in 0..LARGE / piece.len() {
                    if sender.send(Frame::data(piece.clone())).await.is_err() {
                        return;
                    }
                    counter.fetch_add(piece.len(), Ordering::Relaxed);
                }
            });
            Response::new(pieces)
        }
    });
    for host in ["own.example", "other.example"] {
        produced.store(0, Ordering::Relaxed);
        let mut guest = world.http1(host).await;
        let (sender, body) = Pieces::channel();
        tokio::spawn(async move {
            let piece = Bytes::from(vec![b'y'; 64 * 1024]);
            for _ in 0..LARGE / piece.len() {
                sender.send(Frame::data(piece.clone())).await.unwrap();
            }
        });
        let sent = request(host, "/").method("POST").body(body).unwrap();
        let response = guest.send_request(sent).await.unwrap();
        let mut body = response.into_body();
        let mut received = body.frame().await.unwrap().unwrap().into_data().unwrap().len();
        // While we do not read, the upstream must come to a halt.
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
        let ahead = produced.load(Ordering::Relaxed) - received;
        assert!(ahead < 8 * 1024 * 1024, "{ahead} bytes are somewhere on the way");
        while let Some(frame) = body.frame().await {
            received += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(received, LARGE);
    }
    let events = world.events(2).await;
    assert_eq!((events[1].request_bytes, events[1].response_bytes), (LARGE as u64, LARGE as u64));
}

#[tokio::test]
async fn a_guest_that_waits_for_100_gets_it_only_when_it_is_allowed() {
    let world = World::new(|request: Request<_>| async move {
        assert!(!request.headers().contains_key("expect"));
        let body: hyper::body::Incoming = request.into_body();
        let body = body.collect().await.unwrap().to_bytes();
        Response::new(Pieces::of(&[&body]))
    });
    for (host, first) in
        [("other.example", "HTTP/1.1 100 Continue\r\n\r\n"), ("evil.example", "HTTP/1.1 403")]
    {
        let mut guest = world.connect(None, 80, Alpn::Http1);
        let head =
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        guest.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; first.len()];
        guest.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), first);
        if host == "other.example" {
            guest.write_all(b"hello").await.unwrap();
            guest.shutdown().await.unwrap();
            let mut answer = String::new();
            guest.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("hello"), "{answer}");
        }
    }
}

#[tokio::test]
async fn answers_without_a_body_stay_as_they_are() {
    let world = World::new(|request: Request<_>| async move {
        let status = if request.uri().path() == "/304" { 304 } else { 200 };
        // As the test's server sends it; a 304 of its loses its length.
        Response::builder().status(status).header("content-length", "1000").body(Pieces::of(&[])).unwrap()
    });
    for version in [Alpn::Http1, Alpn::Http2] {
        for (method, path) in [("HEAD", "/"), ("GET", "/304")] {
            let sent = Request::builder().method(method);
            let response = match version {
                Alpn::Http1 => {
                    let sent = sent.uri(path).header("host", "own.example").body(Pieces::of(&[])).unwrap();
                    world.http1("own.example").await.send_request(sent).await.unwrap()
                }
                Alpn::Http2 => {
                    let uri = format!("https://own.example{path}");
                    let sent = sent.uri(uri).body(Pieces::of(&[])).unwrap();
                    world.http2("own.example").await.send_request(sent).await.unwrap()
                }
            };
            if method == "HEAD" {
                assert_eq!(response.headers().get("content-length").unwrap(), "1000", "{version:?}");
            }
            assert_eq!(text(response.into_body()).await, "");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_breaks_off_breaks_the_answer_off() {
    let (sender, pieces) = Pieces::channel();
    let body = Mutex::new(Some(pieces));
    let world = World::new(move |_| {
        let body = body.lock().unwrap().take().unwrap();
        async { Response::builder().header("content-length", "10").body(body).unwrap() }
    });
    let mut guest = world.http1("other.example").await;
    let sent = request("other.example", "/").body(Pieces::of(&[])).unwrap();
    let mut body = guest.send_request(sent).await.unwrap().into_body();
    sender.send(Frame::data(Bytes::from_static(b"half"))).await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    drop(sender);
    assert!(body.frame().await.unwrap().is_err(), "half an answer must not look whole");
    assert!(world.events(1).await[0].error.as_deref().unwrap().contains("broke off"));
}

#[tokio::test]
async fn many_requests_at_a_time_share_one_connection_of_http2() {
    let world = World::new(hello);
    let guest = world.http2("other.example").await;
    let requests = (0..50).map(|_| {
        let mut guest = guest.clone();
        async move {
            let response = guest.send_request(get("https://other.example/")).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(text(response.into_body()).await, "hello");
        }
    });
    let requests: Vec<_> = requests.map(tokio::spawn).collect();
    for request in requests {
        request.await.unwrap();
    }
    assert_eq!(world.connected().len(), 1);
}
