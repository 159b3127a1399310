use proptest::prelude::*;

use super::{Guard, MAX_FIELDS, MAX_HEAD, Violation};

/// What passes of these pieces, and how it ends.
fn through(pieces: &[&[u8]]) -> (Vec<u8>, Result<(), Violation>) {
    let mut guard = Guard::default();
    let mut out = Vec::new();
    let fed = pieces.iter().try_for_each(|piece| guard.feed(piece, &mut out));
    (out, fed)
}

fn refused(bytes: &[u8]) -> Violation {
    let (out, fed) = through(&[bytes]);
    assert!(out.is_empty(), "{:?} passed", String::from_utf8_lossy(&out));
    fed.unwrap_err()
}

fn with_field(field: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n").into_bytes()
}

#[test]
fn plain_requests_pass_byte_for_byte() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost:a\r\nX:\t y \r\n\r\n",
        "GET http://a/b?c HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n\
         3;a=\"b\"\r\n\r\n!\r\n0\r\nX-Sum: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let (out, fed) = through(&[request.as_bytes()]);
        assert_eq!(fed, Ok(()), "{request}");
        assert_eq!(out, request.as_bytes());
    }
}

#[test]
fn smuggling_by_two_lengths_is_refused() {
    for (field, violation) in [
        ("Content-Length: 1\r\nContent-Length: 1", Violation::ContentLength),
        ("Content-Length: 1\r\ncontent-length: 2", Violation::ContentLength),
        ("Content-Length: 1, 1", Violation::ContentLength),
        ("Content-Length: +1", Violation::ContentLength),
        ("Content-Length: -1", Violation::ContentLength),
        ("Content-Length: 0x1", Violation::ContentLength),
        ("Content-Length: 1 1", Violation::ContentLength),
        ("Content-Length:", Violation::ContentLength),
        ("Content-Length: 99999999999999999999", Violation::ContentLength),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked", Violation::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1", Violation::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Violation::TransferEncoding),
        ("Transfer-Encoding: gzip, chunked", Violation::TransferEncoding),
        ("Transfer-Encoding: chunked, identity", Violation::TransferEncoding),
        ("Transfer-Encoding: xchunked", Violation::TransferEncoding),
        ("Transfer-Encoding: \"chunked\"", Violation::TransferEncoding),
        ("Transfer-Encoding:\x0bchunked", Violation::FieldValue),
        ("Transfer-Encoding : chunked", Violation::FieldName),
        ("Transfer-Encoding\t: chunked", Violation::FieldName),
        (" Transfer-Encoding: chunked", Violation::Fold),
        ("X: y\r\n Transfer-Encoding: chunked", Violation::Fold),
        ("X: y\nTransfer-Encoding: chunked", Violation::LineEnd),
        ("X: y\rTransfer-Encoding: chunked", Violation::LineEnd),
        ("X: \0", Violation::FieldValue),
        ("X\0: y", Violation::FieldName),
        (": y", Violation::FieldName),
        ("no colon", Violation::FieldName),
        ("H\u{f6}st: y", Violation::FieldName),
    ] {
        assert_eq!(refused(&with_field(field)), violation, "{field:?}");
    }
    assert_eq!(
        refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Violation::TransferEncoding
    );
}

#[test]
fn several_hosts_are_refused() {
    assert_eq!(refused(&with_field("Host: b")), Violation::Host);
    assert_eq!(refused(&with_field("hOST: a")), Violation::Host);
    assert_eq!(refused(b"GET / HTTP/1.1\r\n\r\n"), Violation::Host);
}

#[test]
fn odd_request_lines_are_refused() {
    for (line, violation) in [
        ("GET /", Violation::RequestLine),
        ("GET  / HTTP/1.1", Violation::RequestLine),
        ("GET / HTTP/1.1 ", Violation::RequestLine),
        (" GET / HTTP/1.1", Violation::RequestLine),
        ("\r\nGET / HTTP/1.1", Violation::RequestLine),
        ("GET /a\tb HTTP/1.1", Violation::RequestLine),
        ("GET /\0 HTTP/1.1", Violation::RequestLine),
        ("G(T / HTTP/1.1", Violation::RequestLine),
        ("GET / http/1.1", Violation::Version),
        ("GET / HTTP/1.2", Violation::Version),
        ("GET / HTTP/2.0", Violation::Version),
        ("GET / HTTP/0.9", Violation::Version),
        ("GET / HTTP/11", Violation::Version),
        ("GET /\nHost: b HTTP/1.1", Violation::LineEnd),
    ] {
        assert_eq!(refused(format!("{line}\r\nHost: a\r\n\r\n").as_bytes()), violation, "{line:?}");
    }
}

#[test]
fn odd_chunks_are_refused() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (body, violation) in [
        ("\r\n", Violation::Chunk),
        ("0x1\r\na\r\n", Violation::Chunk),
        (" 1\r\na\r\n", Violation::Chunk),
        ("1 \r\na\r\n", Violation::Chunk),
        ("-1\r\n", Violation::Chunk),
        ("g\r\n", Violation::Chunk),
        ("1000000000000000\r\n", Violation::Chunk),
        ("1\na\r\n", Violation::LineEnd),
        ("1;x\ry\r\na\r\n", Violation::LineEnd),
        ("1;\x01\r\na\r\n", Violation::Chunk),
        ("1\r\nab\r\n", Violation::Chunk),
        ("1\r\na\n", Violation::LineEnd),
        ("0\r\n\n", Violation::LineEnd),
        ("0\r\nContent-Length: 1\r\n\r\n", Violation::Trailers),
        ("0\r\nHost: b\r\n\r\n", Violation::Trailers),
        ("0\r\n X: y\r\n\r\n", Violation::Fold),
    ] {
        let request = format!("{head}{body}");
        let (out, fed) = through(&[request.as_bytes()]);
        assert_eq!(fed, Err(violation), "{body:?}");
        assert!(request.as_bytes().starts_with(&out));
    }
}

#[test]
fn what_cannot_become_a_head_is_refused_before_its_end() {
    for (start, violation) in [
        ("GET /old\r\n", Violation::RequestLine),
        ("GET / HTTP/2.0\r\n", Violation::Version),
        ("GET / HTTP/1.1\nHost: a\n", Violation::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\nX:", Violation::LineEnd),
    ] {
        for size in [1, 5, start.len()] {
            let (mut guard, mut out) = (Guard::default(), Vec::new());
            let fed = start.as_bytes().chunks(size).try_for_each(|piece| guard.feed(piece, &mut out));
            assert_eq!(fed, Err(violation), "{start:?} by {size}");
            assert!(out.is_empty());
        }
    }
}

#[test]
fn nothing_grows_for_ever() {
    let mut endless = Guard::default();
    let mut out = Vec::new();
    let long = [b'a'; 4096];
    endless.feed(b"GET /", &mut out).unwrap();
    let fed = (0..=MAX_HEAD / long.len()).try_for_each(|_| endless.feed(&long, &mut out));
    assert_eq!(fed, Err(Violation::HeadTooLong));
    assert!(out.is_empty());

    let fields = "X: y\r\n".repeat(MAX_FIELDS);
    assert_eq!(refused(&with_field(fields.trim_end())), Violation::TooManyFields);

    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(through(&[chunked, b"1;", &long]).1, Err(Violation::Chunk));
    let trailers = "X-A: b\r\n".repeat(MAX_FIELDS + 1);
    assert_eq!(through(&[chunked, b"0\r\n", trailers.as_bytes()]).1, Err(Violation::TooManyFields));
    assert_eq!(through(&[chunked, b"0\r\n", &vec![b'a'; 20_000]]).1, Err(Violation::Trailers));
}

#[test]
fn after_a_refusal_nothing_passes() {
    let mut guard = Guard::default();
    let mut out = Vec::new();
    guard.feed(b"GET / HTTP/1.1\r\n\r\n", &mut out).unwrap_err();
    assert!(guard.can_answer());
    guard.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &mut out).unwrap_err();
    assert!(guard.release().is_empty());
    guard.feed(b"raw", &mut out).unwrap_err();
    assert!(out.is_empty());
}

#[test]
fn a_smuggled_request_is_seen_as_the_body_that_it_is() {
    let inner = "GET /admin HTTP/1.1\r\nHost: b\r\n\r\n";
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
    let (_, fed) = through(&[request.as_bytes(), b"not a head"]);
    assert_eq!(fed, Ok(()), "the last piece may still become one");
    assert_eq!(through(&[request.as_bytes(), b"(not a head"]).1, Err(Violation::RequestLine));
}

#[test]
fn after_an_upgrade_everything_passes() {
    let mut guard = Guard::default();
    let mut out = Vec::new();
    guard.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &mut out).unwrap();
    guard.feed(b"abc", &mut out).unwrap();
    assert_eq!(guard.release(), b"abc");
    out.clear();
    guard.feed(b"\0\x01\r\n", &mut out).unwrap();
    assert_eq!(out, b"\0\x01\r\n");
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let body = proptest::collection::vec(any::<u8>(), 0..40);
    let one = (body, proptest::option::of(1usize..7)).prop_map(|(body, chunk)| {
        let mut request = b"POST /x HTTP/1.1\r\nHost: a\r\n".to_vec();
        match chunk {
            None => {
                request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                request.extend(&body);
            }
            Some(size) => {
                request.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(size) {
                    request.extend(format!("{:x};e\r\n", chunk.len()).bytes());
                    request.extend(chunk);
                    request.extend(b"\r\n");
                }
                request.extend(b"0\r\nX-T: u\r\n\r\n");
            }
        }
        request
    });
    proptest::collection::vec(one, 1..4).prop_map(|requests| requests.concat())
}

proptest! {
    #[test]
    fn whatever_the_chunking_whole_requests_pass(
        requests in requests(),
        sizes in proptest::collection::vec(1usize..30, 1..20),
    ) {
        let mut guard = Guard::default();
        let mut out = Vec::new();
        let mut rest = &requests[..];
        for &size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let size = size.min(rest.len());
            guard.feed(&rest[..size], &mut out).unwrap();
            rest = &rest[size..];
        }
        prop_assert_eq!(&out, &requests);
    }

    #[test]
    fn chunking_does_not_change_what_is_refused(
        mut requests in requests(),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<proptest::sample::Index>(),
    ) {
        *at.get_mut(&mut requests) = byte;
        let (whole, fed) = through(&[&requests]);
        let (head, tail) = requests.split_at(cut.index(requests.len()));
        let (pieces, fed_in_pieces) = through(&[head, tail]);
        prop_assert_eq!(fed.is_ok(), fed_in_pieces.is_ok());
        prop_assert_eq!(whole, pieces);
        let bytewise: Vec<&[u8]> = requests.chunks(1).collect();
        prop_assert_eq!(fed.is_ok(), through(&bytewise).1.is_ok());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (out, _) = through(&[&bytes]);
        prop_assert!(bytes.starts_with(&out));
    }
}
