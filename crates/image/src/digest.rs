//! Content digests: the SHA-256 of bytes, written `sha256:` and 64 lower-case hex digits, as in
//! the OCI image specification, "Digests". No other algorithm is in use by registries, and none
//! is accepted.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

const ALGORITHM: &str = "sha256";

/// A SHA-256 digest. Of a blob as it is transferred, of a manifest, or of a layer's uncompressed
/// tar, which is then called its diff ID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// Not a digest that can be checked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidDigest {
    /// Well-formed, but of an algorithm other than SHA-256.
    #[error("digest algorithm {0:?} is not supported, only {ALGORITHM} is")]
    Algorithm(String),
    /// Not `algorithm:hex`.
    #[error("{0:?} is not a digest: {ALGORITHM}: and 64 lower-case hex digits")]
    Malformed(String),
}

impl Digest {
    /// The digest of bytes in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 hex digits alone, as used in file names.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first 12 hex digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let malformed = || InvalidDigest::Malformed(text.chars().take(100).collect());
        let (algorithm, hex) = text.split_once(':').ok_or_else(malformed)?;
        if algorithm != ALGORITHM {
            let known_shape = !algorithm.is_empty()
                && algorithm
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+._-".contains(&b));
            return Err(if known_shape {
                InvalidDigest::Algorithm(algorithm.chars().take(100).collect())
            } else {
                malformed()
            });
        }
        let mut bytes = [0; 32];
        let digits = hex.as_bytes();
        if digits.len() != 2 * bytes.len() {
            return Err(malformed());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])
                .zip(nibble(pair[1]))
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(malformed)?;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Digests what is read through it, if anybody wants to know.
#[derive(Debug)]
pub(crate) struct Digesting<R> {
    inner: R,
    hash: Option<Sha256>,
}

impl<R> Digesting<R> {
    /// Starts at nothing read.
    pub(crate) fn new(inner: R, wanted: bool) -> Self {
        Self { inner, hash: wanted.then(Sha256::new) }
    }

    /// The digest of all bytes read, if it was wanted.
    pub(crate) fn finish(self) -> Option<Digest> {
        self.hash.map(|hash| Digest(hash.finalize().into()))
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..count]);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_bytes_agree() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Digest::of(b"")));
        for wanted in [true, false] {
            let mut seen = Digesting::new(b"abc".as_slice(), wanted);
            io::copy(&mut seen, &mut io::sink()).unwrap();
            assert_eq!(seen.finish(), wanted.then(|| Digest::of(b"abc")));
        }
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        for wrong in
            ["", "sha256", "sha256:", &EMPTY[..70], &EMPTY.to_uppercase(), &format!("{EMPTY}0"), ":00"]
        {
            assert!(matches!(wrong.parse::<Digest>(), Err(InvalidDigest::Malformed(_))), "{wrong}");
        }
        assert_eq!("sha512:00".parse::<Digest>(), Err(InvalidDigest::Algorithm("sha512".into())));
        assert!("sha256:../../../../etc/passwd".parse::<Digest>().is_err());
    }
}
