//! Whom requests are for, over whole connections.

use http::StatusCode;

use super::{Alpn, PLACEHOLDER, World, get, hello, reflect, request, text};
use crate::http::tests::Pieces;

#[tokio::test]
async fn requests_of_one_connection_share_one_to_their_host() {
    let world = World::new(hello);
    let mut guest = world.http1("other.example").await;
    for _ in 0..3 {
        let response =
            guest.send_request(request("other.example", "/a").body(Pieces::of(&[])).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(text(response.into_body()).await, "hello");
        guest.ready().await.unwrap();
    }
    assert_eq!(world.connected(), [("other.example".to_owned(), 443, true)]);
    let events = world.events(3).await;
    assert_eq!((events[0].method.as_str(), events[0].url.as_str()), ("GET", "https://other.example/a"));
    assert_eq!((events[0].status_code, events[0].response_bytes, events[0].blocked), (200, 5, false));
    assert_eq!(events[0].error, None);
}

#[tokio::test]
async fn domain_fronting_on_a_later_request_of_a_connection_is_refused() {
    let world = World::new(hello);
    let answer = world
        .raw(
            Some("other.example"),
            443,
            b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n\
              GET / HTTP/1.1\r\nHost: own.example\r\n\r\n\
              GET / HTTP/1.1\r\nHost: other.example\r\n\r\n",
        )
        .await;
    let statuses: Vec<&str> = answer.lines().filter(|line| line.starts_with("HTTP/")).collect();
    assert_eq!(statuses, ["HTTP/1.1 200 OK", "HTTP/1.1 403 Forbidden", "HTTP/1.1 200 OK"]);
    assert!(answer.contains(r#""blocked_by":"matchlock""#) && answer.contains("sni_host_mismatch"));
    assert_eq!(world.connected(), [("other.example".to_owned(), 443, true)]);
    let events = world.events(3).await;
    assert!(events[1].blocked);
    assert_eq!(events[1].status_code, 403);
}

#[tokio::test]
async fn domain_fronting_over_http2_is_refused() {
    let world = World::new(hello);
    let mut guest = world.http2("other.example").await;
    for (uri, expected) in [
        ("https://other.example/", StatusCode::OK),
        ("https://own.example/", StatusCode::FORBIDDEN),
        ("http://other.example/", StatusCode::BAD_REQUEST),
        ("https://other.example/", StatusCode::OK),
    ] {
        assert_eq!(guest.send_request(get(uri)).await.unwrap().status(), expected, "{uri}");
    }
    let mut differs = get("https://other.example/");
    differs.headers_mut().insert("host", "own.example".parse().unwrap());
    assert_eq!(guest.send_request(differs).await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(world.connected(), [("other.example".to_owned(), 443, true)]);
}

#[tokio::test]
async fn hosts_that_do_not_agree_are_refused_and_nobody_is_dialled() {
    let world = World::new(hello);
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: plain.example:8080\r\nHost: plain.example:8080", "400"),
        ("GET http://other.example/ HTTP/1.1\r\nHost: plain.example:8080", "400"),
        ("GET http://plain.example:8080/ HTTP/1.1\r\nHost: other.example", "400"),
        ("GET / HTTP/1.0", "400"),
        ("GET / HTTP/1.1\r\nHost: evil.example", "403"),
        ("GET / HTTP/1.1\r\nHost: plain.example.", "400"),
        ("CONNECT plain.example:8080 HTTP/1.1\r\nHost: plain.example:8080", "403"),
    ] {
        let answer = world.raw(None, 8080, format!("{head}\r\n\r\n").as_bytes()).await;
        assert_eq!(answer.split(' ').nth(1), Some(expected), "{head}\n{answer}");
    }
    assert_eq!(world.connected(), []);
}

#[tokio::test]
async fn absolute_targets_that_agree_are_answered() {
    let world = World::new(reflect);
    let answer = world
        .raw(None, 8080, b"GET http://plain.example:8080/x HTTP/1.1\r\nHost: plain.example:8080\r\n\r\n")
        .await;
    assert!(answer.contains("GET /x\nhost: plain.example:8080\n"), "{answer}");
    assert_eq!(world.connected(), [("plain.example".to_owned(), 8080, false)]);
}

#[tokio::test]
async fn requests_keep_their_shape() {
    let world = World::new(reflect);
    for (sent, expected) in [
        ("OPTIONS * HTTP/1.1\r\nHost: other.example\r\n\r\n", "OPTIONS *\nhost: other.example\n"),
        ("GET / HTTP/1.0\r\nHost: other.example\r\n\r\n", "GET /\nhost: other.example\n"),
        (
            "POST / HTTP/1.1\r\nHost: other.example\r\nContent-Length: 0\r\n\r\n",
            "POST /\nhost: other.example\ncontent-length: 0\n",
        ),
        (
            "PUT / HTTP/1.1\r\nHost: other.example\r\nContent-Length: 2\r\n\r\nhi",
            "PUT /\nhost: other.example\ncontent-length: 2\n",
        ),
        (
            "PUT / HTTP/1.1\r\nHost: other.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "PUT /\nhost: other.example\ntransfer-encoding: chunked\n",
        ),
    ] {
        let answer = world.raw(None, 80, sent.as_bytes()).await;
        assert!(answer.contains(expected), "{sent}\n{answer}");
    }
}

#[tokio::test]
async fn smuggling_ends_the_connection_with_a_reason() {
    let world = World::new(reflect);
    let answer = world
        .raw(
            Some("other.example"),
            443,
            b"GET /1 HTTP/1.1\r\nHost: other.example\r\n\r\n\
              POST /2 HTTP/1.1\r\nHost: other.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
              0\r\n\r\nGET /3 HTTP/1.1\r\nHost: other.example\r\n\r\n",
        )
        .await;
    let statuses: Vec<&str> = answer.lines().filter(|line| line.starts_with("HTTP/")).collect();
    assert_eq!(statuses, ["HTTP/1.1 200 OK", "HTTP/1.1 400 Bad Request"], "{answer}");
    assert!(answer.contains("malformed_request"));
    let events = world.events(2).await;
    assert!(!events[0].blocked && events[1].blocked);
    assert_eq!(events[1].block_code.as_deref(), Some("malformed_request"));
    assert_eq!(events[1].rule.as_deref(), Some("Transfer-Encoding is not chunked alone"));
}

#[tokio::test]
async fn a_malformed_chunk_reaches_no_upstream_as_an_end() {
    let world = World::new(reflect);
    let answer = world
        .raw(
            Some("other.example"),
            443,
            b"POST / HTTP/1.1\r\nHost: other.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0 \r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(world.events(1).await[0].blocked);
}

#[tokio::test]
async fn a_refused_upload_leaves_the_connection_usable() {
    let world = World::new(hello);
    let mut bytes = format!(
        "POST / HTTP/1.1\r\nHost: other.example\r\nX: {PLACEHOLDER}\r\nContent-Length: 100000\r\n\r\n"
    )
    .into_bytes();
    bytes.extend(std::iter::repeat_n(b'x', 100_000));
    bytes.extend(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n");
    let answer = world.raw(Some("other.example"), 443, &bytes).await;
    let statuses: Vec<&str> = answer.lines().filter(|line| line.starts_with("HTTP/")).collect();
    assert_eq!(statuses, ["HTTP/1.1 403 Forbidden", "HTTP/1.1 200 OK"], "{answer}");
}

#[tokio::test]
async fn http1_at_one_end_and_http2_at_the_other_are_converted() {
    let world = World::with(Some(Alpn::Http2), vec![], reflect);
    let mut guest = world.http1("other.example").await;
    let sent = request("other.example", "/x?y").header("cookie", "a=1").body(Pieces::of(&[])).unwrap();
    let answer = guest.send_request(sent).await.unwrap();
    assert_eq!(text(answer.into_body()).await, "GET https://other.example/x?y\ncookie: a=1\n");

    let world = World::with(Some(Alpn::Http1), vec![], reflect);
    let mut guest = world.http2("other.example").await;
    let mut sent = get("https://other.example/x?y");
    sent.headers_mut().append("cookie", "a=1".parse().unwrap());
    sent.headers_mut().append("cookie", "b=2".parse().unwrap());
    let answer = guest.send_request(sent).await.unwrap();
    let answer = text(answer.into_body()).await;
    assert!(answer.starts_with("GET /x?y\n") && answer.contains("cookie: a=1; b=2\n"), "{answer}");
    assert!(answer.contains("host: other.example\n"));
}
