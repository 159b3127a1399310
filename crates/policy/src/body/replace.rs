//! Texts that are replaced by others, one after the other.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use api::network::Replacement;
use thiserror::Error;

use super::BodyError;

/// The text to be replaced is empty, or too long to be looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there is no text to be replaced")]
pub struct EmptyFind;

/// Replaces texts in bodies.
#[derive(Clone, Default)]
pub struct Replacer(Vec<Arc<Pair>>);

struct Pair {
    find: AhoCorasick,
    replace: Vec<u8>,
}

impl Replacer {
    /// Makes these replacements ready. Each is made in what those before it left.
    ///
    /// # Errors
    /// A text to be replaced is empty.
    pub fn new(replacements: &[Replacement]) -> Result<Self, EmptyFind> {
        let pairs = replacements.iter().map(|Replacement { find, replace }| {
            if find.is_empty() {
                return Err(EmptyFind);
            }
            let find = AhoCorasick::new([find]).map_err(|_| EmptyFind)?;
            Ok(Arc::new(Pair { find, replace: replace.clone().into_bytes() }))
        });
        Ok(Self(pairs.collect::<Result<_, _>>()?))
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds those of another, after these.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// A text with all replacements made.
    ///
    /// # Errors
    /// It would become longer than `limit`.
    pub fn apply<'a>(&self, text: Cow<'a, [u8]>, limit: usize) -> Result<Cow<'a, [u8]>, BodyError> {
        self.0.iter().try_fold(text, |text, pair| pair.apply(text, limit))
    }
}

impl Pair {
    fn apply<'a>(&self, text: Cow<'a, [u8]>, limit: usize) -> Result<Cow<'a, [u8]>, BodyError> {
        let mut changed = Vec::new();
        let mut from = 0;
        for found in self.find.find_iter(&*text) {
            changed.extend_from_slice(&text[from..found.start()]);
            changed.extend_from_slice(&self.replace);
            from = found.end();
            if changed.len() > limit {
                return Err(BodyError::TooLong(limit));
            }
        }
        if from == 0 {
            return Ok(text);
        }
        changed.extend_from_slice(&text[from..]);
        if changed.len() > limit {
            return Err(BodyError::TooLong(limit));
        }
        Ok(Cow::Owned(changed))
    }
}

impl fmt::Debug for Replacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replacer({})", self.0.len())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::borrow::Cow;

    use api::network::Replacement;

    use super::{EmptyFind, Replacer};
    use crate::body::BodyError;

    pub(in crate::body) fn replacer(pairs: &[(&str, &str)]) -> Replacer {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|&(find, replace)| Replacement { find: find.to_owned(), replace: replace.to_owned() })
            .collect();
        Replacer::new(&pairs).unwrap()
    }

    #[test]
    fn replacements_are_made_one_after_the_other() {
        let replacer = replacer(&[("a", "bb"), ("b", "c")]);
        assert_eq!(&*replacer.apply(Cow::Borrowed(b"xaby"), 64).unwrap(), b"xcccy");
    }

    #[test]
    fn an_empty_text_cannot_be_replaced() {
        let pair = Replacement { find: String::new(), replace: "x".to_owned() };
        assert_eq!(Replacer::new(&[pair]).unwrap_err(), EmptyFind);
    }

    #[test]
    fn a_replacement_cannot_make_a_body_huge() {
        let replacer = replacer(&[("a", "aaaaaaaaaa"), ("a", "aaaaaaaaaa"), ("a", "aaaaaaaaaa")]);
        assert_eq!(replacer.apply(Cow::Borrowed(&[b'a'; 64]), 4096), Err(BodyError::TooLong(4096)));
    }
}
