use proptest::prelude::*;

use super::EventStream;
use crate::body::replace::tests::replacer;
use crate::body::{BodyError, MAX_LINE};

fn through(pairs: &[(&str, &str)], pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = EventStream::new(replacer(pairs));
    let mut out = Vec::new();
    for piece in pieces {
        stream.feed(piece, &mut out).unwrap();
    }
    stream.finish(&mut out).unwrap();
    out
}

#[test]
fn only_payloads_change() {
    let events = b"\xef\xbb\xbfdata: cat\n: cat\nevent: cat\nid:cat\ndata:cat cat\n\ndatacat: cat\ndata\n\n";
    let expected =
        b"\xef\xbb\xbfdata: dog\n: cat\nevent: cat\nid:cat\ndata:dog dog\n\ndatacat: cat\ndata\n\n";
    assert_eq!(through(&[("cat", "dog")], &[events]), expected);
}

#[test]
fn every_line_end_is_kept() {
    let events = b"data: a\r\ndata: a\rdata: a\n\r\n\r\n\n";
    assert_eq!(through(&[("a", "b")], &[events]), b"data: b\r\ndata: b\rdata: b\n\r\n\r\n\n");
}

#[test]
fn a_line_goes_on_as_soon_as_it_ends() {
    let mut stream = EventStream::new(replacer(&[("a", "b")]));
    let mut out = Vec::new();
    stream.feed(b"data: a\r\n\r", &mut out).unwrap();
    assert_eq!(out, b"data: b\r\n\r");
    stream.feed(b"\n", &mut out).unwrap();
    assert_eq!(out, b"data: b\r\n\r\n");
}

#[test]
fn a_replacement_cannot_begin_another_event() {
    let out = through(&[("a", "1\n\nevent: evil\r\rid: 7")], &[b"data: a\n\n"]);
    assert_eq!(out, b"data: 1\ndata: \ndata: event: evil\ndata: \ndata: id: 7\n\n");
}

#[test]
fn an_endless_line_ends_the_stream() {
    let mut stream = EventStream::new(replacer(&[("a", "b")]));
    let mut out = Vec::new();
    let piece = vec![b'x'; MAX_LINE / 4 + 1];
    let fed: Result<(), _> = (0..4).try_for_each(|_| stream.feed(&piece, &mut out));
    assert_eq!(fed, Err(BodyError::LineTooLong(MAX_LINE)));
    assert!(out.is_empty());
}

proptest! {
    #[test]
    fn chunking_changes_nothing(
        lines in proptest::collection::vec(("(data: ?|id:|: )?[abc]{0,8}", "\n|\r\n|\r"), 0..12),
        cuts in proptest::collection::vec(0usize..64, 0..8),
    ) {
        let text: String = lines.iter().flat_map(|(line, end)| [line.as_str(), end.as_str()]).collect();
        let pairs = [("ab", "x"), ("c", "longer")];
        let whole = through(&pairs, &[text.as_bytes()]);
        let mut cuts: Vec<usize> = cuts.iter().map(|&cut| cut.min(text.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([text.len()]) {
            pieces.push(&text.as_bytes()[from..cut]);
            from = cut;
        }
        prop_assert_eq!(through(&pairs, &pieces), whole);
    }

    #[test]
    fn without_a_match_every_byte_stays(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(through(&[("not in there", "x")], &[&text]), text);
    }
}
