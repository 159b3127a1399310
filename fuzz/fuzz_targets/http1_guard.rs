//! Bytes of a hostile guest's HTTP/1 connection: what passes is the beginning of what was sent, however it
//! was cut, and no head passes in part.

#![no_main]

use libfuzzer_sys::fuzz_target;
use net::Guard;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, sizes) = input;
    let mut whole = Vec::new();
    let mut guard = Guard::default();
    let result = guard.feed(&bytes, &mut whole);
    assert!(bytes.starts_with(&whole));
    if result.is_err() {
        let passed = whole.len();
        assert!(guard.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &mut whole).is_err());
        assert_eq!(whole.len(), passed, "something passed after a refusal");
    }

    let mut pieces = Vec::new();
    let mut guard = Guard::default();
    let mut rest = &bytes[..];
    let mut refused = false;
    for size in sizes.iter().map(|&size| usize::from(size) + 1).chain([usize::MAX]) {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        // As the connection does: what needs no look passes unseen.
        let free = usize::try_from(guard.free()).unwrap_or(usize::MAX).min(piece.len());
        guard.passed(free as u64);
        pieces.extend_from_slice(&piece[..free]);
        refused = guard.feed(&piece[free..], &mut pieces).is_err();
        rest = after;
        if refused {
            break;
        }
    }
    assert_eq!(refused, result.is_err());
    assert_eq!(pieces, whole);
    if let Some(first) = whole.first() {
        assert!(first.is_ascii_graphic());
        let head = whole.windows(4).position(|four| four == b"\r\n\r\n").expect("a head passes as a whole");
        assert!(!whole[..head].contains(&0));
    }
});
