//! WebSockets: an upgrade that is checked, and raw frames after it.

use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::{Alpn, PLACEHOLDER, Pieces, VALUE, World, hello};

/// An upstream that grants the upgrade, says something, and sends back what it gets.
fn echo(
    greeting: &'static [u8],
) -> impl Fn(Request<hyper::body::Incoming>) -> std::future::Ready<Response<Pieces>> {
    move |mut request| {
        assert_eq!(request.headers()["upgrade"], "websocket");
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut socket = TokioIo::new(upgrade.await.unwrap());
            socket.write_all(greeting).await.unwrap();
            let (mut from, mut to) = tokio::io::split(socket);
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
        let response = Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        std::future::ready(response.body(Pieces::of(&[])).unwrap())
    }
}

async fn upgrade(world: &World, host: &str, extra: &str) -> (DuplexStream, String) {
    let mut guest = world.connect(Some(host), 443, Alpn::Http1);
    let head = format!(
        "GET /chat HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    );
    guest.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(guest.read_u8().await.unwrap());
    }
    (guest, String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn frames_pass_both_ways_after_an_upgrade() {
    let world = World::new(echo(b"\x81\x02hi"));
    for host in ["own.example", "other.example"] {
        let (mut guest, head) = upgrade(&world, host, "").await;
        assert!(head.starts_with("HTTP/1.1 101") && head.contains("sec-websocket-accept"), "{head}");
        let mut greeting = [0; 4];
        guest.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"\x81\x02hi");
        // No HTTP any more: nothing of it is judged as such.
        let frame = b"\x82\x05\0\r\n \xff";
        guest.write_all(frame).await.unwrap();
        let mut echoed = [0; 7];
        guest.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, frame);
        guest.shutdown().await.unwrap();
        let mut rest = Vec::new();
        guest.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
    }
    let events = world.events(2).await;
    assert_eq!((events[0].status_code, events[0].request_bytes, events[0].response_bytes), (101, 7, 11));
    assert_eq!(events[0].url, "https://own.example/chat");
}

#[tokio::test]
async fn the_value_is_put_into_the_upgrade_and_ends_the_socket_when_it_comes_back() {
    let world = World::new(echo(b"\x81\x7fsk-live/Value+1&2=3"));
    let (mut guest, head) = upgrade(&world, "own.example", &format!("X-Key: {PLACEHOLDER}\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let mut received = Vec::new();
    let _ = guest.read_to_end(&mut received).await;
    assert!(!String::from_utf8_lossy(&received).contains(VALUE));
    let event = &world.events(1).await[0];
    assert!(event.blocked);
    assert_eq!(event.block_code.as_deref(), Some("secret_reflected"));
}

#[tokio::test]
async fn a_value_that_comes_back_in_two_reads_is_stopped_before_its_beginning_is_gone() {
    let world = World::new(echo(b"hi"));
    let (mut guest, _) = upgrade(&world, "own.example", "").await;
    guest.read_exact(&mut [0; 2]).await.unwrap();
    let (beginning, end) = VALUE.as_bytes().split_at(9);
    // What turns out to be no value comes after all, and so does a message that ends like one by chance.
    for (sent, got) in [(beginning, 0), (b"else", 13), (&VALUE.as_bytes()[..3], 3), (b".", 1)] {
        guest.write_all(sent).await.unwrap();
        let mut echoed = vec![0; got];
        guest.read_exact(&mut echoed).await.unwrap();
        assert!(echoed.ends_with(&sent[..sent.len().min(got)]));
    }
    guest.write_all(beginning).await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    guest.write_all(end).await.unwrap();
    let mut rest = Vec::new();
    let _ = guest.read_to_end(&mut rest).await;
    assert_eq!(String::from_utf8_lossy(&rest), "");
    assert_eq!(world.events(1).await[0].block_code.as_deref(), Some("secret_reflected"));
}

#[tokio::test]
async fn what_is_held_back_comes_at_the_end() {
    let world = World::new(echo(b"hi"));
    let (mut guest, _) = upgrade(&world, "own.example", "").await;
    guest.write_all(&VALUE.as_bytes()[..9]).await.unwrap();
    guest.shutdown().await.unwrap();
    let mut all = Vec::new();
    guest.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, [b"hi", &VALUE.as_bytes()[..9]].concat());
}

#[tokio::test]
async fn bytes_after_a_refused_upgrade_are_still_judged_as_http() {
    let world = World::new(hello);
    let (mut guest, head) = upgrade(&world, "other.example", "").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    guest.write_all(b"\x81\x02hi").await.unwrap();
    let mut rest = Vec::new();
    guest.read_to_end(&mut rest).await.unwrap();
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.contains("hello") && rest.contains("HTTP/1.1 400"), "{rest}");
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_no_answer() {
    let world = World::new(|_| async {
        Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .body(Pieces::of(&[]))
            .unwrap()
    });
    let answer = world.raw(None, 80, b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}

#[tokio::test]
async fn a_socket_ends_when_its_host_is_no_longer_allowed() {
    let world = World::new(echo(b"hi"));
    let (mut guest, _) = upgrade(&world, "other.example", "").await;
    let mut greeting = [0; 2];
    guest.read_exact(&mut greeting).await.unwrap();
    world.policy.send_modify(|policy| *policy = policy.remove(&["other.example".parse().unwrap()]));
    let mut rest = Vec::new();
    let _ = guest.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    assert!(world.events(1).await[0].blocked);
}
