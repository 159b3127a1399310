use std::net::SocketAddr;

use policy::Entry;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use world::{GREETING, Kind, Server, World, trust};

mod world;

/// Reads one HTTP response that ends with the connection.
async fn ask(mut stream: impl Io, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn echoed(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), line: &str) -> String {
    stream.write_all(line.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; 200];
    let length = stream.read(&mut answer).await.unwrap();
    String::from_utf8(answer[..length].to_vec()).unwrap()
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";

#[tokio::test]
async fn a_port_on_which_nobody_listens_is_refused() {
    let server = Server::start(Kind::Echo, "127.0.0.1:0", &[]).await;
    let address = server.address;
    server.stop().await;
    let world = World::sealed(&[&address.to_string()], &[]);
    assert!(world.connect(address).await.is_none());
    let event = world.event().await;
    assert_eq!(event.error.unwrap(), "connection refused");
    assert!(!event.blocked);
}

#[tokio::test]
async fn an_address_of_no_allowed_name_is_refused_before_it_is_dialled() {
    let server = Server::start(Kind::Echo, "127.0.0.1:0", &[]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.2", "a.example")]);
    assert!(world.connect(server.address).await.is_none());
    let event = world.event().await;
    assert!(event.blocked);
    assert_eq!(event.url, format!("tcp://{}", server.address));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_server_name_that_is_not_allowed_is_answered_with_why_and_never_dialled() {
    let server = Server::start(Kind::Tls, "127.0.0.1:0", &["evil.example"]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example"), ("127.0.0.1", "evil.example")]);
    let guest = world.connect(server.address).await.unwrap();
    let guest = world.handshake(guest, "evil.example", &[b"http/1.1"]).await.unwrap();
    let answer = ask(guest, GET).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(
        answer.contains(r#""blocked_by":"matchlock""#) && answer.contains("host_not_allowed"),
        "{answer}"
    );
    let event = world.event().await;
    assert!(event.blocked);
    assert_eq!(event.host, "evil.example");
    assert_eq!(event.url, format!("tls://evil.example:{}", server.address.port()));
    assert_eq!(server.heard(), b"");
}

#[tokio::test]
async fn a_refusal_is_told_over_http_2_too() {
    let server = Server::start(Kind::Tls, "127.0.0.1:0", &["a.example"]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    let guest = world.connect(server.address).await.unwrap();
    let guest = world.handshake(guest, "evil.example", &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(guest.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = hyper_util::rt::TokioIo::new(guest);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = ::http::Request::get("https://evil.example/").body(String::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 403);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_name_that_is_an_address_is_refused() {
    let server = Server::start(Kind::Tls, "127.0.0.1:0", &["a.example"]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    let mut guest = world.connect(server.address).await.unwrap();
    guest.write_all(&world::hello(Some("127.0.0.1"), false)).await.unwrap();
    assert_eq!(world::alert_of(guest).await, Some(50));
    let event = world.event().await;
    assert_eq!(event.block_code.as_deref(), Some("sni_invalid"));
    assert_eq!(server.heard(), b"");
}

#[tokio::test]
async fn tls_without_a_server_name_to_the_address_of_an_allowed_name_is_refused() {
    let server = Server::start(Kind::Tls, "127.0.0.1:0", &["a.example"]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    let mut guest = world.connect(server.address).await.unwrap();
    guest.write_all(&world::hello(None, false)).await.unwrap();
    assert_eq!(world::alert_of(guest).await, Some(49));
    assert_eq!(world.event().await.block_code.as_deref(), Some("sni_missing"));
    assert_eq!(server.heard(), b"");
}

#[tokio::test]
async fn tls_that_begins_oddly_does_not_hide_the_server_name() {
    let server = Server::start(Kind::Echo, "127.0.0.1:0", &[]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    let hello = world::hello(Some("evil.example"), false);
    let mut odd_version = hello.clone();
    odd_version[1] = 2;
    for begin in [[&[0x15, 3, 1, 0, 2, 1, 90][..], &hello].concat(), odd_version] {
        let mut guest = world.connect(server.address).await.unwrap();
        guest.write_all(&begin).await.unwrap();
        guest.shutdown().await.unwrap();
        assert_eq!(world::alert_of(guest).await, Some(50));
        assert_eq!(world.event().await.block_code.as_deref(), Some("malformed_hello"));
        assert_eq!(server.heard(), b"");
    }
}

#[tokio::test]
async fn tls_to_a_raw_address_needs_an_entry_with_that_address_and_its_certificate() {
    let server = Server::start(Kind::Tls, "127.0.0.1:0", &["127.0.0.1"]).await;
    let world = World::sealed(&[&server.address.to_string()], &[]);
    let guest = world.connect(server.address).await.unwrap();
    let mut guest = world.handshake(guest, "127.0.0.1", &[]).await.unwrap();
    assert_eq!(echoed(&mut guest, "\x01hello").await, "127.0.0.1: \x01hello");
}

#[tokio::test]
async fn a_name_with_the_address_of_another_reaches_its_own_address() {
    let first = Server::start(Kind::Tls, "127.0.0.1:0", &["a.example"]).await;
    let port = first.address.port();
    let second = Server::start(Kind::Tls, &format!("127.0.0.2:{port}"), &["b.example"]).await;
    let world =
        World::sealed(&["a.example", "b.example"], &[("127.0.0.1", "a.example"), ("127.0.0.2", "b.example")]);
    let guest = world.connect(first.address).await.unwrap();
    let mut guest = world.handshake(guest, "b.example", &[]).await.unwrap();
    assert_eq!(echoed(&mut guest, "\x01hello").await, "b.example: \x01hello");
    assert_eq!(first.heard(), b"");
    drop(second);
}

#[tokio::test]
async fn an_encrypted_hello_does_not_pass_unseen() {
    let server = Server::start(Kind::Echo, "127.0.0.1:0", &[]).await;
    let world = World::passing(&["a.example"], &[("127.0.0.1", "a.example")]);
    let mut guest = world.connect(server.address).await.unwrap();
    guest.write_all(&world::hello(Some("a.example"), true)).await.unwrap();
    assert_eq!(world::alert_of(guest).await, Some(49));
    assert_eq!(world.event().await.block_code.as_deref(), Some("ech"));
    assert_eq!(server.heard(), b"");
}

#[tokio::test]
async fn a_passthrough_host_shows_its_own_certificate() {
    let server = Server::start(Kind::Tls, "127.0.0.1:0", &["a.example"]).await;
    let world = World::passing(&["a.example"], &[("127.0.0.1", "a.example")]);
    let guest = world.connect(server.address).await.unwrap();
    let mut guest = trust(&world.server_roots(), guest, "a.example", &[]).await.unwrap();
    assert_eq!(echoed(&mut guest, "hello").await, "a.example: hello");
    drop(guest);
    let event = world.event().await;
    assert_eq!(event.url, format!("tls://a.example:{}", server.address.port()));
    assert!(event.request_bytes > 0 && event.response_bytes > 0);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_reached_by_an_allowed_name() {
    let server = Server::start(Kind::Greeting, "127.0.0.1:0", &[]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    let mut guest = world.connect(server.address).await.unwrap();
    let mut greeting = vec![0; GREETING.len()];
    guest.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting, GREETING);
    assert_eq!(echoed(&mut guest, "EHLO\r\n").await, "EHLO\r\n");
}

#[tokio::test]
async fn an_opaque_flow_carries_both_ways_and_half_closes() {
    let server = Server::start(Kind::Echo, "127.0.0.1:0", &[]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    let mut guest = world.connect(server.address).await.unwrap();
    guest.write_all(b"SSH-2.0-x\r\nmore").await.unwrap();
    guest.shutdown().await.unwrap();
    let mut answer = Vec::new();
    guest.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"SSH-2.0-x\r\nmore");
    let event = world.event().await;
    assert_eq!((event.method.as_str(), event.request_bytes, event.response_bytes), ("CONNECT", 15, 15));
}

#[tokio::test]
async fn a_request_smuggled_into_an_opaque_flow_never_reaches_the_server_as_it_is() {
    let server = Server::start(Kind::Echo, "127.0.0.1:0", &[]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    for line in ["EVIL / HTTP/1.1", "\r\nGET\t/ HTTP/1.1", "SSH-2.0-x / HTTP/1.1"] {
        let guest = world.connect(server.address).await.unwrap();
        ask(guest, &format!("{line}\r\nhost: evil.example\r\nconnection: close\r\n\r\n")).await;
    }
    assert!(!server.heard().windows(4).any(|part| part == b"evil"));
}

#[tokio::test]
async fn a_server_with_a_bad_certificate_is_answered_for() {
    let server = Server::start(Kind::Tls, "127.0.0.1:0", &["other.example"]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    let guest = world.connect(server.address).await.unwrap();
    let guest = world.handshake(guest, "a.example", &[]).await.unwrap();
    let answer = ask(guest, GET).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("certificate"), "{answer}");
    let event = world.event().await;
    assert!(event.error.unwrap().contains("certificate"));
    assert_eq!(server.heard(), b"");
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_answered_for() {
    let server = Server::start(Kind::Echo, "127.0.0.1:0", &[]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    let guest = world.connect(server.address).await.unwrap();
    let guest = world.handshake(guest, "a.example", &[]).await.unwrap();
    assert!(ask(guest, GET).await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test]
async fn a_guest_that_speaks_no_http_is_refused_by_an_alert() {
    let server = Server::start(Kind::Tls, "127.0.0.1:0", &["a.example"]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    let guest = world.connect(server.address).await.unwrap();
    let error = world.handshake(guest, "evil.example", &[b"imap"]).await.unwrap_err();
    assert!(error.to_string().contains("AccessDenied"), "{error}");
}

#[tokio::test]
async fn a_host_taken_away_while_a_tunnel_is_open_ends_the_tunnel() {
    let server = Server::start(Kind::Tls, "127.0.0.1:0", &["a.example"]).await;
    let name: Entry = "a.example".parse().unwrap();
    let world = World::sealed(&["a.example", "b.example"], &[("127.0.0.1", "a.example")]);
    let guest = world.connect(server.address).await.unwrap();
    let mut guest = world.handshake(guest, "a.example", &[]).await.unwrap();
    assert_eq!(echoed(&mut guest, "\x01hello").await, "a.example: \x01hello");
    world.change(|policy| policy.add(&["c.example".parse().unwrap()]));
    assert_eq!(echoed(&mut guest, "again").await, "again");
    world.change(|policy| policy.remove(&[name]));
    assert!(matches!(guest.read(&mut [0; 10]).await, Ok(0) | Err(_)));
    let event = world.event().await;
    assert!(event.blocked && event.block_code.as_deref() == Some("host_not_allowed"));
}

#[tokio::test]
async fn a_hello_byte_by_byte_is_understood() {
    let server = Server::start(Kind::Tls, "127.0.0.1:0", &["a.example"]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    let guest = world::Dribble::new(world.connect(server.address).await.unwrap());
    let mut guest = world.handshake(guest, "a.example", &[]).await.unwrap();
    assert_eq!(echoed(&mut guest, "\x01hello").await, "a.example: \x01hello");
}

#[tokio::test]
async fn the_guest_is_answered_with_the_protocol_of_the_server() {
    for (speaks, expected) in
        [(&b"h2"[..], Some(&b"h2"[..])), (b"http/1.1", Some(b"http/1.1")), (b"imap", None)]
    {
        let server = Server::start_with_alpn("127.0.0.1:0", &["a.example"], speaks).await;
        let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
        let guest = world.connect(server.address).await.unwrap();
        let guest = world.handshake(guest, "a.example", &[b"h2", b"http/1.1"]).await;
        match expected {
            Some(expected) => assert_eq!(guest.unwrap().get_ref().1.alpn_protocol(), Some(expected)),
            // The server refused; the guest is told over HTTP.
            None => assert!(guest.unwrap().get_ref().1.alpn_protocol().is_some()),
        }
    }
}

fn get(host: &str, port: u16) -> String {
    format!("GET /path HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn a_request_over_tls_reaches_its_host_on_the_connection_that_was_made_first() {
    let server = Server::start(Kind::Https, "127.0.0.1:0", &["a.example"]).await;
    let port = server.address.port();
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    for alpn in [&[][..], &[&b"h2"[..], b"http/1.1"], &[b"http/1.1"]] {
        let guest = world.connect(server.address).await.unwrap();
        let guest = world.handshake(guest, "a.example", alpn).await.unwrap();
        let answer = ask(guest, &get("a.example", port)).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("a.example"), "{answer}");
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn a_request_for_another_host_than_the_server_name_never_reaches_the_server() {
    let server = Server::start(Kind::Https, "127.0.0.1:0", &["a.example"]).await;
    let port = server.address.port();
    let world =
        World::sealed(&["a.example", "b.example"], &[("127.0.0.1", "a.example"), ("127.0.0.1", "b.example")]);
    let guest = world.connect(server.address).await.unwrap();
    let guest = world.handshake(guest, "a.example", &[]).await.unwrap();
    let answer = ask(guest, &get("b.example", port)).await;
    assert!(answer.contains("sni_host_mismatch"), "{answer}");
    assert_eq!(server.heard(), b"");
}

#[tokio::test]
async fn a_plain_request_reaches_an_allowed_host_and_no_other_at_its_address() {
    let server = Server::start(Kind::Http, "127.0.0.1:0", &["a.example"]).await;
    let port = server.address.port();
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example"), ("127.0.0.1", "evil.example")]);
    let guest = world.connect(server.address).await.unwrap();
    let answer = ask(guest, &get("a.example", port)).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("a.example"), "{answer}");
    let before = server.heard();
    let guest = world.connect(server.address).await.unwrap();
    let answer = ask(guest, &get("evil.example", port)).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(server.heard(), before);
}

#[tokio::test]
async fn a_guest_that_does_not_trust_us_is_told_of_passthrough() {
    let server = Server::start(Kind::Https, "127.0.0.1:0", &["a.example"]).await;
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    let guest = world.connect(server.address).await.unwrap();
    trust(&world.server_roots(), guest, "a.example", &[]).await.unwrap_err();
    assert!(world.event().await.error.unwrap().contains("--passthrough-host"));
}

#[tokio::test]
async fn an_open_network_is_not_looked_into() {
    let server = Server::start(Kind::Tls, "127.0.0.1:0", &["a.example"]).await;
    let world = World::open(&[("127.0.0.1", "a.example")]);
    let guest = world.connect(server.address).await.unwrap();
    let mut guest = trust(&world.server_roots(), guest, "a.example", &[]).await.unwrap();
    assert_eq!(echoed(&mut guest, "hello").await, "a.example: hello");
}

#[tokio::test]
async fn a_network_that_is_sealed_ends_what_was_opened_before() {
    let server = Server::start(Kind::Tls, "127.0.0.1:0", &["a.example"]).await;
    let world = World::open(&[("127.0.0.1", "a.example")]);
    let guest = world.connect(server.address).await.unwrap();
    let mut guest = trust(&world.server_roots(), guest, "a.example", &[]).await.unwrap();
    assert_eq!(echoed(&mut guest, "hello").await, "a.example: hello");
    world.change(|policy| policy.add(&["b.example".parse().unwrap()]));
    assert!(matches!(guest.read(&mut [0; 10]).await, Ok(0) | Err(_)));
    assert!(world.event().await.blocked);
}

#[tokio::test]
async fn any_name_server_is_ours() {
    let world = World::sealed(&["a.example"], &[("127.0.0.1", "a.example")]);
    // Nobody listens there, and nobody is asked.
    let somewhere: SocketAddr = "192.0.2.53:53".parse().unwrap();
    let mut guest = world.connect(somewhere).await.unwrap();
    guest.write_all(&[0, 2, 1, 1]).await.unwrap();
    let mut answer = Vec::new();
    guest.read_to_end(&mut answer).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_finishes_its_hello_is_left() {
    let (mut slow, mut guest) = duplex(64);
    slow.write_all(&world::hello(Some("a.example"), false)[..20]).await.unwrap();
    let mut read = Vec::new();
    let waited =
        tokio::time::timeout(std::time::Duration::from_secs(60), intercept::hello(&mut guest, &mut read));
    assert!(waited.await.is_err());
    assert_eq!(read.len(), 20);
}

#[tokio::test]
async fn thousands_of_flows_take_little_memory_each() {
    assert!(World::open(&[]).size_of_flow() <= 4096);
}
