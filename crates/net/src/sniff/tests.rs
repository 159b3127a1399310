use proptest::prelude::*;

use super::*;

#[test]
fn tls_is_told_by_two_bytes_on_any_port() {
    assert_eq!(classify(&[0x16]), None);
    assert_eq!(classify(&[0x16, 3]), Some(Protocol::Tls));
    assert_eq!(classify(&[0x16, 2]), Some(Protocol::Other));
}

#[test]
fn the_old_form_of_a_hello_is_no_way_around_the_server_name() {
    assert_eq!(classify(&[0x80, 0x2e, 1, 3, 1]), Some(Protocol::Tls));
    assert_eq!(classify(&[0x80, 0x2e, 1, 0, 2]), Some(Protocol::Tls));
    assert_eq!(classify(&[0x80, 0x2e, 1]), None);
    assert_eq!(classify(&[0x80, 0x2e, 7]), Some(Protocol::Other));
}

#[test]
fn requests_are_told_as_soon_as_they_can_be_nothing_else() {
    assert_eq!(classify(b"G"), None);
    assert_eq!(classify(b"GET"), None);
    assert_eq!(classify(b"GET "), Some(Protocol::Http1));
    assert_eq!(classify(b"PROPFIND /"), None);
    assert_eq!(classify(b"PROPFIND / HTTP/1"), Some(Protocol::Http1));
    assert_eq!(classify(PREFACE), Some(Protocol::Http2));
    assert_eq!(classify(&PREFACE[..23]), None);
    assert_eq!(classify(b"PRI * HTTP/2.0\r\n\r\nXX"), Some(Protocol::Http1));
}

#[test]
fn what_a_lenient_server_takes_for_a_request_is_one() {
    for odd in [
        &b"\r\nGET / HTTP/1.1"[..],
        b"\nGET / HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET\x0b/",
        b"GET\r/ HTTP/1.1\r\n",
        b"get / http/1.1\r\n",
        b"EVIL / HTTP/1.1\r\n",
        b"EVIL\t/\tHTTP/9",
        b"SSH-2.0-x / HTTP/1.1\r\nHost: evil.example\r\n",
        b"OPTIONS * RTSP/1.0\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"GET /\n",
        b"GET /\0 HTTP/1.1",
        b"PROPFIND /\0 HTTP/1.1",
        b"P\r\0PRI * HTTP/2.0\r\n",
    ] {
        assert_eq!(classify(odd), Some(Protocol::Http1), "{}", odd.escape_ascii());
    }
}

#[test]
fn other_protocols_are_told_from_it() {
    for other in [
        &b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n"[..],
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"*1\r\n$4\r\nPING\r\n",
        b"PING\r\n",
        b"NICK someone\r\n",
        b"0033git-upload-pack /project.git\0host=example.com\0",
        b"<?xml version='1.0'?>",
        b"\x10\x0f\0\x04MQTT",
        b"AMQP\0\0\x09\x01",
        b"get key\r\n",
    ] {
        assert_eq!(classify(other), Some(Protocol::Other), "{}", other.escape_ascii());
    }
}

#[test]
fn a_line_without_an_end_is_for_the_strict_parser() {
    for undecided in [&b""[..], b"G", b"PRI * HT", b"SSH-2.0-x y", b"word\r"] {
        assert_eq!(classify(undecided), None);
    }
    assert_eq!(classify(&[b'A'; MAX_LINE]), Some(Protocol::Http1));
    assert_eq!(classify(&[b'A'; MAX_LINE - 1]), None);
}

proptest! {
    #[test]
    fn more_bytes_never_change_what_was_told(
        start in prop::collection::vec(prop::sample::select(&b"P1 /\r\n\0\x16\x80"[..]), 0..8),
        rest in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let first = [start, b"PRI * HTTP/2.0\r\n\r".to_vec(), rest].concat();
        let mut before = None;
        for end in 0..=first.len() {
            let now = classify(&first[..end]);
            if before.is_some() {
                prop_assert_eq!(now, before);
            }
            before = now;
        }
    }

    #[test]
    fn a_request_is_never_taken_for_something_else(method in "[!#$%&'*+.^_`|~A-Za-z0-9-]{1,20}", space in "[ \t\x0b\x0c]", target in "[!-~]{1,40}", version in "[Hh][Tt][Tt][Pp]/[0-9]\\.[0-9]") {
        let line = format!("{method}{space}{target} {version}\r\n");
        for end in 1..=line.len() {
            prop_assert_ne!(classify(&line.as_bytes()[..end]), Some(Protocol::Other));
        }
    }
}
