//! Placeholders, and where they are in a text: as they are, or as base64.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::SecretError;
use super::form;

/// How a placeholder of ours begins.
const PREFIX: &str = "SANDBOX_SECRET_";

/// The shortest and longest placeholder, bytes: a shorter one would be in texts by chance.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=256;

/// A placeholder made of random bits.
#[must_use]
pub fn placeholder(random: [u8; 16]) -> String {
    format!("{PREFIX}{:032x}", u128::from_be_bytes(random))
}

/// Whether a user's placeholder can be one.
pub(super) fn is_valid(text: &str) -> bool {
    LENGTHS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Finds placeholders. Secrets are named by their index.
pub(super) struct Finder {
    plain: AhoCorasick,
    /// In lower case, as names of headers are.
    lower: AhoCorasick,
    /// The characters of base64 that any placement of a placeholder in the encoded bytes has.
    base64: AhoCorasick,
    /// The secret of each pattern in `base64`.
    owners: Vec<usize>,
}

impl Finder {
    /// Finds `placeholders`.
    ///
    /// # Errors
    ///
    /// [`SecretError::TooLarge`].
    pub(super) fn new<'a>(placeholders: impl Iterator<Item = &'a str>) -> Result<Self, SecretError> {
        let placeholders: Vec<&str> = placeholders.collect();
        let lower: Vec<String> = placeholders.iter().map(|text| text.to_ascii_lowercase()).collect();
        let (mut patterns, mut owners) = (Vec::new(), Vec::new());
        for (owner, placeholder) in placeholders.iter().enumerate() {
            for core in form::base64_cores(placeholder.as_bytes()) {
                patterns.push(core);
                owners.push(owner);
            }
        }
        Ok(Self {
            plain: automaton(&placeholders)?,
            lower: automaton(&lower)?,
            base64: automaton(&patterns)?,
            owners,
        })
    }

    /// Where they are, from the left, none overlapping another.
    pub(super) fn plain<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, Range<usize>)> + 'a {
        self.plain.find_iter(text).map(|found| (found.pattern().as_usize(), found.range()))
    }

    /// Which are in a name of a header.
    pub(super) fn in_name<'a>(&'a self, name: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.lower.find_iter(name).map(|found| found.pattern().as_usize())
    }

    /// Which are in a text as they are or as base64.
    pub(super) fn any<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let base64 = self.base64.find_iter(text).map(|found| self.owners[found.pattern().as_usize()]);
        self.plain(text).map(|(secret, _)| secret).chain(base64)
    }
}

/// The most bytes of patterns that are made a table of, which takes a few hundred bytes for each of
/// theirs; larger ones get a slower automaton. Stops long secrets from taking our memory.
const MAX_TABLE: usize = 4096;

/// Finds the leftmost of some patterns, and the longest there.
///
/// # Errors
///
/// [`SecretError::TooLarge`].
pub(super) fn automaton<P: AsRef<[u8]>>(patterns: &[P]) -> Result<AhoCorasick, SecretError> {
    let bytes: usize = patterns.iter().map(|pattern| pattern.as_ref().len()).sum();
    let kind = if bytes > MAX_TABLE { AhoCorasickKind::ContiguousNFA } else { AhoCorasickKind::DFA };
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .kind(Some(kind))
        // As fast for any text: looking for rare bytes first is many times slower where they are not rare,
        // which is the host's choice.
        .prefilter(false)
        .build(patterns)
        .map_err(|_| SecretError::TooLarge)
}
