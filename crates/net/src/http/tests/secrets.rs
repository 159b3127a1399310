//! Values of secrets over whole connections: where they go, and that they do not come back.

use std::sync::Arc;

use api::network::{Phase, Replacement, RuleSpec};
use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use policy::Permit;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::{Alpn, Connect, ConnectError, Connected, Io};
use super::{PLACEHOLDER, Pieces, VALUE, World, get, hello, reflect, request, text};

#[tokio::test]
async fn a_value_goes_to_its_own_host_and_is_not_seen_by_the_guest() {
    let world = World::new(|request| async move {
        assert_eq!(request.headers()["authorization"], format!("Bearer {VALUE}"));
        assert_eq!(request.uri().query(), Some("k=sk-live%2FValue%2B1%262%3D3"));
        let mut response = reflect(request).await;
        response.headers_mut().insert("x-echo", VALUE.parse().unwrap());
        response
    });
    let mut guest = world.http1("own.example").await;
    let sent = request("own.example", &format!("/?k={PLACEHOLDER}"))
        .header("authorization", format!("Bearer {PLACEHOLDER}"))
        .body(Pieces::of(&[]))
        .unwrap();
    let response = guest.send_request(sent).await.unwrap();
    assert_eq!(response.headers()["x-echo"], PLACEHOLDER);
    let body = text(response.into_body()).await;
    assert!(body.contains(&format!("authorization: Bearer {PLACEHOLDER}")), "{body}");
    assert!(!body.contains("sk-live"));
    let event = &world.events(1).await[0];
    assert_eq!(event.url, format!("https://own.example/?k={PLACEHOLDER}"));
    assert!(!format!("{event:?}").contains("sk-live"));
}

#[tokio::test]
async fn a_value_in_the_words_behind_the_status_is_hidden() {
    let world = World::new(|_| async {
        let words = hyper::ext::ReasonPhrase::from_static(VALUE.as_bytes());
        Response::builder().status(400).extension(words).body(Pieces::of(&[])).unwrap()
    });
    let request = b"GET / HTTP/1.1\r\nHost: own.example\r\n\r\n";
    let answer = world.raw(Some("own.example"), 443, request).await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
}

#[tokio::test]
async fn basic_credentials_are_decoded_and_rebuilt() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let world = World::new(|request| async move {
        let expected = format!("Basic {}", STANDARD.encode(format!("user:{VALUE}")));
        assert_eq!(request.headers()["authorization"], expected);
        reflect(request).await
    });
    let mut guest = world.http2("own.example").await;
    let mut sent = get("https://own.example/");
    let credentials = format!("Basic {}", STANDARD.encode(format!("user:{PLACEHOLDER}")));
    sent.headers_mut().insert("authorization", credentials.parse().unwrap());
    let response = guest.send_request(sent).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = text(response.into_body()).await;
    assert!(!body.contains("sk-live") && !body.contains("c2stbGl2ZS9WYWx1"), "{body}");
}

#[tokio::test]
async fn a_placeholder_on_its_way_to_another_host_is_refused() {
    let world = World::new(reflect);
    let mut guest = world.http1("other.example").await;
    let sent = request("other.example", "/").header("x-key", PLACEHOLDER).body(Pieces::of(&[])).unwrap();
    let response = guest.send_request(sent).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(text(response.into_body()).await.contains("secret_wrong_host"));
    assert_eq!(world.connected(), []);
}

#[tokio::test]
async fn a_secret_over_plain_http_is_refused() {
    let world = World::new(reflect);
    let request = format!("GET / HTTP/1.1\r\nHost: own.example\r\nX-Key: {PLACEHOLDER}\r\n\r\n");
    let answer = world.raw(None, 80, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("plain_http_secret"), "{answer}");
    assert_eq!(world.connected(), []);
}

#[tokio::test]
async fn a_placeholder_in_a_body_stays_and_stops_nothing() {
    let world = World::new(reflect);
    for host in ["own.example", "other.example"] {
        let mut guest = world.http1(host).await;
        let (one, two) = PLACEHOLDER.split_at(9);
        let body = Pieces::of(&[one.as_bytes(), two.as_bytes()]);
        let sent = request(host, "/").method("POST").body(body).unwrap();
        let response = guest.send_request(sent).await.unwrap();
        assert!(text(response.into_body()).await.ends_with(PLACEHOLDER));
    }
}

async fn compressed(encoding: &str, text: &[u8]) -> Vec<u8> {
    macro_rules! all {
        ($encoder:ident) => {{
            let mut encoder = $encoder::new(Vec::new());
            encoder.write_all(text).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    match encoding {
        "gzip" => all!(GzipEncoder),
        "deflate" => all!(ZlibEncoder),
        "br" => all!(BrotliEncoder),
        _ => all!(ZstdEncoder),
    }
}

#[tokio::test]
async fn a_value_in_a_compressed_body_is_found() {
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let world = World::new(move |_| async move {
            let body = compressed(encoding, format!("before {VALUE} after").as_bytes()).await;
            let (sender, pieces) = Pieces::channel();
            tokio::spawn(async move {
                for piece in body.chunks(7) {
                    sender.send(Frame::data(Bytes::copy_from_slice(piece))).await.unwrap();
                }
            });
            Response::builder().header("content-encoding", encoding).body(pieces).unwrap()
        });
        let mut guest = world.http1("own.example").await;
        let sent =
            request("own.example", "/").header("accept-encoding", encoding).body(Pieces::of(&[])).unwrap();
        let response = guest.send_request(sent).await.unwrap();
        assert!(!response.headers().contains_key("content-encoding"));
        assert_eq!(text(response.into_body()).await, format!("before {PLACEHOLDER} after"), "{encoding}");
    }
}

#[tokio::test]
async fn a_compressed_stream_is_passed_on_as_it_comes() {
    let (to_upstream, pieces) = Pieces::channel();
    let body = std::sync::Mutex::new(Some(pieces));
    let world = World::new(move |_| {
        let body = body.lock().unwrap().take().unwrap();
        async { Response::builder().header("content-encoding", "gzip").body(body).unwrap() }
    });
    let mut guest = world.http1("own.example").await;
    let sent = request("own.example", "/").body(Pieces::of(&[])).unwrap();
    let response = tokio::spawn(async move { (guest.send_request(sent).await.unwrap(), guest) });
    let mut encoder = GzipEncoder::new(Vec::new());
    encoder.write_all(b"first").await.unwrap();
    encoder.flush().await.unwrap();
    let first = std::mem::take(encoder.get_mut());
    to_upstream.send(Frame::data(first.into())).await.unwrap();
    let (response, _guest) = response.await.unwrap();
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&*frame, b"first");
    encoder.write_all(b"second").await.unwrap();
    encoder.shutdown().await.unwrap();
    to_upstream.send(Frame::data(encoder.into_inner().into())).await.unwrap();
    drop(to_upstream);
    assert_eq!(text(body).await, "second");
}

#[tokio::test]
async fn a_body_in_an_unknown_encoding_is_refused() {
    let world = World::new(|_| async {
        Response::builder().header("content-encoding", "exi").body(Pieces::of(&[b"?"])).unwrap()
    });
    let mut guest = world.http1("own.example").await;
    let response =
        guest.send_request(request("own.example", "/").body(Pieces::of(&[])).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(text(response.into_body()).await.contains("encoding_unknown"));
}

const TRAILERS: [&str; 5] = ["grpc-message", "host", "expect", "trailer", "content-length"];

#[tokio::test]
async fn a_value_in_trailers_is_hidden() {
    let world = World::new(|_| async {
        let (sender, pieces) = Pieces::channel();
        sender.try_send(Frame::data(Bytes::from_static(b"x"))).unwrap();
        let mut end = HeaderMap::new();
        for name in TRAILERS {
            end.insert(name, VALUE.parse().unwrap());
        }
        sender.try_send(Frame::trailers(end)).unwrap();
        Response::new(pieces)
    });
    let mut guest = world.http2("own.example").await;
    let response = guest.send_request(get("https://own.example/")).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    for name in TRAILERS {
        assert_eq!(collected.trailers().unwrap()[name], PLACEHOLDER, "{name}");
    }
}

/// An upstream that ends its connection of HTTP/2 once it has a request, with a value in its words, before
/// the head of the answer or behind it.
struct GoesAway {
    with_head: bool,
}

impl Connect for GoesAway {
    fn connect<'a>(
        &'a self,
        _: &'a Permit,
        _: bool,
        _: Alpn,
    ) -> BoxFuture<'a, Result<Connected, ConnectError>> {
        let (near, far) = duplex(4096);
        tokio::spawn(go_away(far, self.with_head));
        Box::pin(async { Ok((Box::new(near) as Box<dyn Io>, Alpn::Http2)) })
    }
}

async fn go_away(mut far: DuplexStream, with_head: bool) {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    far.read_exact(&mut [0; 24]).await.unwrap();
    far.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let mut head = [0; 9];
    while head[3] != 1 {
        far.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        far.read_exact(&mut vec![0; length as usize]).await.unwrap();
    }
    if with_head {
        // HEADERS that end here: `:status: 200` in HPACK's static table.
        far.write_all(&frame(1, 4, 1, &[0x88])).await.unwrap();
    }
    let internal_error = [0, 0, 0, 0, 0, 0, 0, 2];
    far.write_all(&frame(7, 0, 0, &[&internal_error, VALUE.as_bytes()].concat())).await.unwrap();
    let _ = far.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn a_value_in_the_words_with_which_an_upstream_goes_away_is_told_to_nobody() {
    let body_replacements = vec![Replacement { find: "a".to_owned(), replace: "b".to_owned() }];
    let whole = RuleSpec { phase: Phase::After, body_replacements, ..RuleSpec::default() };
    for (with_head, rules) in [(false, vec![]), (true, vec![]), (true, vec![whole])] {
        let world = World::with(None, rules, hello);
        let guest = world.connect_by(Arc::new(GoesAway { with_head }), Some("own.example"), 443, Alpn::Http1);
        let (mut guest, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(guest)).await.unwrap();
        tokio::spawn(connection);
        let sent = request("own.example", "/").body(Pieces::of(&[])).unwrap();
        if let Ok(response) = guest.send_request(sent).await
            && let Ok(body) = response.into_body().collect().await
        {
            let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
            assert!(body.contains("unexpected internal error") && !body.contains("sk-live"), "{body}");
        }
        let event = format!("{:?}", world.events(1).await);
        assert!(event.contains("unexpected internal error") && !event.contains("sk-live"), "{event}");
    }
}
