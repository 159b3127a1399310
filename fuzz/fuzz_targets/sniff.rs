//! A connection's first bytes: what was told of them never changes with more, and a line that begins with a
//! method and has HTTP's version is never taken for something that needs no look.

#![no_main]

use libfuzzer_sys::fuzz_target;
use net::sniff::{Protocol, classify};

fuzz_target!(|first: &[u8]| {
    let mut told = None;
    for end in 0..=first.len().min(128) {
        let now = classify(&first[..end]);
        assert!(told.is_none() || told == now, "changed its mind");
        told = now;
    }
    let last = classify(first);
    if last == Some(Protocol::Other) {
        let line = first.split(|&byte| byte == b'\n' || byte == 0).next().unwrap_or(first);
        let mut words = line.split(|&byte| byte == b' ');
        let method = words.next().unwrap_or_default();
        let has_method = !method.is_empty() && method.iter().all(u8::is_ascii_alphanumeric);
        assert!(!has_method || !words.any(|word| word.starts_with(b"HTTP/1")), "a request passes");
    }
});
