//! What a guest says first over TLS: never a panic, never more than is allowed, and the same however it
//! is cut into packets.

#![no_main]

use libfuzzer_sys::fuzz_target;
use net::tls::hello::{MAX_WIRE, Reader, parse};

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, wire) = input;
    let whole = parse(wire);
    let mut reader = Reader::default();
    let (first, _) = wire.split_at(usize::from(cut).min(wire.len()));
    match reader.read(first) {
        Ok(None) => assert_eq!(reader.read(wire), whole),
        // What was decided stays so, unless the rest would have been refused.
        Ok(Some(hello)) => assert_eq!(whole, Ok(Some(hello))),
        Err(_) => assert!(!matches!(whole, Ok(Some(_))) || first.len() >= MAX_WIRE),
    }
    if let Ok(Some(hello)) = whole {
        assert!(hello.alpn.iter().all(|protocol| !protocol.is_empty()));
        if let Some(name) = hello.sni {
            assert!(matches!(policy::host::Host::parse(&name.to_string()), Ok(policy::host::Host::Name(again)) if again == name));
        }
    }
});
