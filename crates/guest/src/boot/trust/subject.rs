//! The name by which OpenSSL looks a certificate up in a directory: a hash of its subject.
//!
//! As `X509_NAME_hash()` and `x509_name_canon()` of OpenSSL 1.0 and later have it.

use super::sha1::sha1;

/// The name of its file without the number at the end; `None` for what is no certificate, or one whose
/// subject has text of a kind that ours never has.
pub(super) fn hash(certificate: &[u8]) -> Option<String> {
    let [a, b, c, d, ..] = sha1(&canonical(subject(certificate)?)?);
    Some(format!("{:08x}", u32::from_le_bytes([a, b, c, d])))
}

/// The contents of the subject, a sequence of sets.
fn subject(certificate: &[u8]) -> Option<&[u8]> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    if let Some((VERSION, _, after)) = element(rest) {
        rest = after;
    }
    for _skipped in ["serial number", "signature", "issuer", "validity"] {
        rest = element(rest)?.2;
    }
    let (tag, subject, _) = element(rest)?;
    (tag == SEQUENCE).then_some(subject)
}

/// Every text as UTF-8, in small letters, with single spaces.
fn canonical(mut subject: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    while !subject.is_empty() {
        let (_, mut set, rest) = element(subject)?;
        subject = rest;
        let mut attributes = Vec::new();
        while !set.is_empty() {
            let (_, attribute, rest) = element(set)?;
            set = rest;
            let (kind, object, value) = element(attribute)?;
            let (text_kind, text, _) = element(value)?;
            if !TEXTS.contains(&text_kind) {
                return None;
            }
            let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
            let text = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            let value = [encode(kind, object)?, encode(UTF8, text.as_bytes())?].concat();
            attributes.extend(encode(SEQUENCE, &value)?);
        }
        name.extend(encode(SET, &attributes)?);
    }
    Some(name)
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTF8: u8 = 0x0C;
const VERSION: u8 = 0xA0;

/// `UTF8String`, `PrintableString`, `IA5String`, `VisibleString`: all of which are UTF-8.
const TEXTS: [u8; 4] = [UTF8, 0x13, 0x16, 0x1A];

/// One element of DER: its tag, its contents, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((*tag, contents, rest))
}

/// An element of less than 64 KiB.
fn encode(tag: u8, contents: &[u8]) -> Option<Vec<u8>> {
    let [high, low] = u16::try_from(contents.len()).ok()?.to_be_bytes();
    let head = match (high, low) {
        (0, 0..=0x7F) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    Some([&head, contents].concat())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;
    use crate::boot::trust::{pem, tests::certificate};

    #[test]
    fn openssl_has_the_same_hash() {
        for subject in [
            "/CN=Matchlock sandbox CA",
            "/C=DE/O=  Two   SPACES /CN=Grüße",
            &format!("/O={}/CN={}", "long ".repeat(12), "x".repeat(60)),
        ] {
            let text = certificate(subject);
            let file = std::env::temp_dir().join(format!("matchlock-subject-{}", std::process::id()));
            std::fs::write(&file, &text).unwrap();
            let said = Command::new("openssl").args(["x509", "-noout", "-hash", "-in"]).arg(&file).output();
            std::fs::remove_file(file).unwrap();
            let expected = String::from_utf8(said.unwrap().stdout).unwrap();
            let der = pem::certificates(text.as_bytes()).remove(0);
            assert_eq!(hash(&der).as_deref(), Some(expected.trim_end()), "{subject}");
        }
    }

    proptest! {
        #[test]
        fn what_is_no_certificate_has_no_hash_or_some(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..600_usize) {
            hash(&bytes);
            let der = pem::certificates(include_bytes!("testdata/certificate.pem")).remove(0);
            let cut = cut % der.len();
            prop_assert_eq!(hash(&der[..cut]), None);
            let mut changed = der;
            changed[cut] ^= bytes.first().copied().unwrap_or(1);
            hash(&changed);
        }
    }
}
