//! Requests with placeholders, and answers with values: a value goes to its own host only, and does not
//! come back, however what is sent is cut. The first byte of an input says how, the second to whom.

#![no_main]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use api::network::{NetworkSpec, SecretSpec};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use policy::secret::Masker;
use policy::{Host, Permit, Policy, SecretValue};

const PLACEHOLDERS: [&str; 2] = ["PLACEHOLDER-1", "{{token+2}}"];
const VALUES: [&str; 2] = ["abcab\"cab", "cababcabc/+="];
const HOSTS: [(&str, [bool; 2]); 4] = [
    ("other.example", [false, false]),
    ("first.example", [true, false]),
    ("second.example", [false, true]),
    ("both.example", [true, true]),
];

fn policy() -> &'static Policy {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    POLICY.get_or_init(|| {
        let mut spec = NetworkSpec { allowed_hosts: vec!["other.example".into()], ..NetworkSpec::default() };
        let mut values = BTreeMap::new();
        for (i, own) in ["first.example", "second.example"].into_iter().enumerate() {
            let hosts = vec![own.to_owned(), "both.example".to_owned()];
            let secret = SecretSpec { placeholder: PLACEHOLDERS[i].to_owned(), hosts, mask: true };
            spec.secrets.insert(format!("SECRET{i}"), secret);
            values.insert(format!("SECRET{i}"), SecretValue::new(VALUES[i].to_owned()).expect("it is one"));
        }
        Policy::compile(&spec, &[], values).expect("it is one")
    })
}

fn has(text: &[u8], value: &str) -> bool {
    text.windows(value.len()).any(|window| window == value.as_bytes())
}

/// What a request becomes: the bytes of its headers and query.
fn sent(permit: &Permit, https: bool, input: &[u8]) -> (bool, Vec<u8>) {
    let mut parts = input.splitn(3, |&byte| byte == b'\n').map(String::from_utf8_lossy);
    let (path, query) = (parts.next().unwrap_or_default(), parts.next().map(String::from));
    let mut headers = HeaderMap::new();
    for line in parts.next().unwrap_or_default().lines() {
        let (name, value) = line.split_once(": ").unwrap_or(("authorization", line));
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    let mut query = query;
    let result = policy().secrets().substitute(permit, https, &mut headers, &path, &mut query);
    let mut bytes = query.unwrap_or_default().into_bytes();
    // Or its end and the beginning of a header were a value that nobody sends.
    bytes.push(b'\n');
    for value in headers.values() {
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(b'\n');
    }
    (result.is_ok(), bytes)
}

/// What the guest gets of an answer that comes in pieces of a size.
fn masked(masker: &Masker, size: usize, text: &[u8]) -> Vec<u8> {
    let (mut stream, mut out) = (masker.stream(), Vec::new());
    for piece in text.chunks(size) {
        stream.feed(piece, &mut out);
    }
    stream.finish(&mut out);
    out
}

fuzz_target!(|input: &[u8]| {
    let [how, whom, text @ ..] = input else { return };
    let (host, own) = HOSTS[usize::from(*whom) % HOSTS.len()];
    let https = how & 1 == 0;
    let host = Host::parse(host).expect("it is one");
    let permit = policy().host(&host, if https { 443 } else { 80 }).expect("it is allowed");
    let (passed, bytes) = sent(&permit, https, text);
    for (value, own) in VALUES.iter().zip(own) {
        // What the guest knows already is no secret.
        assert!(own && https || has(text, value) || !has(&bytes, value), "{host} got a value");
    }
    if passed && !own.contains(&true) {
        assert!(PLACEHOLDERS.iter().all(|placeholder| !has(&bytes, placeholder)), "{host} got a placeholder");
    }
    let Some(masker) = policy().secrets().masker(&permit) else { return };
    let whole = masked(&masker, text.len().max(1), text);
    assert_eq!(masked(&masker, usize::from(*how) + 1, text), whole, "it matters how it is cut");
    for (value, own) in VALUES.iter().zip(own) {
        assert!(!own || !has(&whole, value), "a value came back");
    }
    let mut scanner = policy().secrets().leak_scanner(&permit).expect("it has a masker");
    let found = text.chunks(usize::from(*how) + 1).fold(false, |found, piece| scanner.feed(piece) || found);
    assert_eq!(found, whole != text, "the scanner and the masker differ");
});
