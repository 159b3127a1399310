//! Java's trust store, `cacerts`: a `JKS` file of certificates.
//!
//! Every JDK reads this format, whatever `cacerts` is written in by default, because of its setting
//! `keystore.type.compat`. The format is that of `sun.security.provider.JavaKeyStore`.

use super::sha1::sha1;

/// The password that everybody knows; the JDK itself reads `cacerts` without one.
const PASSWORD: &str = "changeit";

/// What is hashed between the password and the file.
const SALT: &[u8] = b"Mighty Aphrodite";

const MAGIC: u32 = 0xFEED_FEED;
const VERSION: u32 = 2;
const TRUSTED_CERTIFICATE: u32 = 2;

/// A key store that trusts these certificates (DER), each since this time, milliseconds after the Unix
/// epoch.
pub(super) fn trusting(certificates: &[Vec<u8>], since_ms: u64) -> Vec<u8> {
    let length = certificates.iter().map(|certificate| certificate.len() + 64).sum::<usize>() + 256;
    // What is hashed, of which the file is the end.
    let mut text = Vec::with_capacity(length);
    text.extend(PASSWORD.encode_utf16().flat_map(u16::to_be_bytes));
    text.extend(SALT);
    let file = text.len();
    word(&mut text, MAGIC);
    word(&mut text, VERSION);
    word(&mut text, bounded(certificates.len()));
    for (number, certificate) in certificates.iter().enumerate() {
        word(&mut text, TRUSTED_CERTIFICATE);
        string(&mut text, &format!("ca-{number}"));
        text.extend(since_ms.to_be_bytes());
        string(&mut text, "X.509");
        word(&mut text, bounded(certificate.len()));
        text.extend(certificate);
    }
    text.extend(sha1(&text));
    text.split_off(file)
}

fn word(text: &mut Vec<u8>, word: u32) {
    text.extend(word.to_be_bytes());
}

fn string(text: &mut Vec<u8>, string: &str) {
    text.extend(u16::try_from(string.len()).expect("names are short").to_be_bytes());
    text.extend(string.as_bytes());
}

fn bounded(length: usize) -> u32 {
    u32::try_from(length).expect("bundles are small")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::trust::pem;

    /// `keytool -importcert -storetype JKS -storepass changeit -alias ca-0 -file certificate.pem`.
    const KEYTOOL: &[u8] = include_bytes!("testdata/keytool.jks");

    const CERTIFICATE: &[u8] = include_bytes!("testdata/certificate.pem");

    #[test]
    fn a_key_store_is_what_keytool_makes() {
        // After three words, the kind of the entry and its name.
        let since = KEYTOOL[12 + 4 + 2 + 4..].first_chunk().copied().map(u64::from_be_bytes).unwrap();
        assert_eq!(trusting(&pem::certificates(CERTIFICATE), since), KEYTOOL);
    }
}
