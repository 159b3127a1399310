use proptest::prelude::*;

use super::*;

#[test]
fn tls_is_told_by_two_bytes_on_any_port() {
    assert_eq!(classify(&[0x16]), None);
    assert_eq!(classify(&[0x16, 3]), Some(Protocol::Tls));
}

#[test]
fn a_record_before_the_hello_is_no_way_around_the_server_name() {
    for kind in [0x14, 0x15, 0x17] {
        assert_eq!(classify(&[kind]), None);
        assert_eq!(classify(&[kind, 3]), Some(Protocol::Tls));
    }
    for version in [[0, 0], [2, 0], [0x0f, 0xff], [0x10, 0], [0xff, 0xff]] {
        for [kind, high, low, content] in
            [[0x14, 0, 1, 1], [0x15, 0, 2, 1], [0x15, 0, 2, 2], [0x15, 0, 1, 1], [0x15, 1, 0, 1]]
        {
            let record = [kind, version[0], version[1], high, low, content];
            assert_eq!(classify(&record), Some(Protocol::Tls), "{record:?}");
            assert_eq!(classify(&record[..5]), None, "{record:?}");
        }
    }
}

#[test]
fn an_odd_record_version_is_no_way_around_the_server_name() {
    for version in [[0, 0], [2, 0], [0x0f, 0xff], [0x10, 0], [0xff, 0xff]] {
        for length in [[0, 1], [0, 0xc0], [2, 0]] {
            let hello = [&[0x16][..], &version, &length, &[1]].concat();
            assert_eq!(classify(&hello), Some(Protocol::Tls), "{hello:?}");
            assert_eq!(classify(&hello[..5]), None, "{hello:?}");
        }
    }
}

#[test]
fn lengths_that_look_like_the_type_of_a_record_do_not_make_it_tls() {
    for kind in 0x14..=0x16 {
        for number in [0_u8, 1, 2, 22, 255] {
            let message = [&[kind, 1, 0, 0, number][..], &[0; 7], &[0xdd, 7, 0, 0]].concat();
            assert_eq!(classify(&message), Some(Protocol::Other), "{message:?}");
        }
    }
    assert_eq!(classify(&[0x17, 1]), Some(Protocol::Other));
    for separator in [0x1c, 0x1f, 0x85, 0xa0] {
        assert_eq!(classify(&[separator, 1, 0, 0]), Some(Protocol::Other));
    }
}

#[test]
fn the_old_form_of_a_hello_is_no_way_around_the_server_name() {
    assert_eq!(classify(&[0x80, 0x2e, 1, 3, 1]), Some(Protocol::Tls));
    assert_eq!(classify(&[0x80, 0x2e, 1, 0, 2]), Some(Protocol::Tls));
    assert_eq!(classify(&[0x80, 0x2e, 1]), None);
    assert_eq!(classify(&[0x80, 0x2e, 7]), Some(Protocol::Other));
    let odd = [0x80, 0x2e, 1, 0, 33, 0, 3, 0, 0, 0, 32];
    assert_eq!(classify(&odd), Some(Protocol::Tls));
    assert_eq!(classify(&odd[..9]), None);
    assert_eq!(classify(b"\x82\x21\x01\x08getThing"), Some(Protocol::Other), "Thrift's compact form");
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
        b"GET\x1c/x\x1cHTTP/1.1",
        b"GET\x1f/",
        b"GET\x85/ HTTP/1.1",
        b"GET\xa0/ HTTP/1.1",
        b"PROPFIND\x1d/\x1eHTTP/1.1",
        b"\x1c\xa0GET / HTTP/1.1",
        b"\x85PROPFIND\xa0/\x85HTTP/1.1",
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
        start in prop::collection::vec(prop::sample::select(&b"P1 /\r\n\0\x01\x14\x15\x16\x1c\x80\xa0"[..]), 0..8),
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
    fn a_request_is_never_taken_for_something_else(
        before in prop::collection::vec(prop::sample::select(&b"\x1c\x1d\x1e\x1f\x85\xa0"[..]), 0..3),
        method in "[!#$%&'*+.^_`|~A-Za-z0-9-]{1,20}",
        space in prop::sample::select(&b" \t\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0"[..]),
        target in "[!-~]{1,40}",
        version in "[Hh][Tt][Tt][Pp]/[0-9]\\.[0-9]",
    ) {
        let rest = [target.as_bytes(), &[space], version.as_bytes(), b"\r\n"].concat();
        let line = [before, method.into_bytes(), vec![space], rest].concat();
        for end in 1..=line.len() {
            prop_assert_ne!(classify(&line[..end]), Some(Protocol::Other));
        }
    }
}
