//! Streams of events of a hostile server: replacements are the same however the stream is cut, and a
//! stream in which nothing is found stays as it is.

#![no_main]

use api::network::Replacement;
use libfuzzer_sys::fuzz_target;
use policy::body::{EventStream, Replacer};

fn through(find: &str, pieces: &[&[u8]]) -> Vec<u8> {
    let replacement = Replacement { find: find.to_owned(), replace: "x\n\ny".to_owned() };
    let mut stream = EventStream::new(Replacer::new(&[replacement]).expect("it is not empty"));
    let mut out = Vec::new();
    for piece in pieces {
        stream.feed(piece, &mut out).expect("inputs are shorter than the longest line");
    }
    stream.finish(&mut out).expect("inputs are shorter than the longest line");
    out
}

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, sizes) = input;
    let mut pieces = Vec::new();
    let mut rest = &bytes[..];
    for size in sizes.iter().map(|&size| usize::from(size)).chain([usize::MAX]) {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    assert_eq!(through("a", &pieces), through("a", &[&bytes]));
    assert_eq!(through("this is not in there, it is too long", &pieces), bytes);
});
