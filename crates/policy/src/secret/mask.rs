//! Placeholders in the place of values that a host sends back: in headers, and in bodies as they stream by,
//! however they are cut. Values are found as they are and in the forms that servers write them in.
//!
//! What a host does to a value on purpose, by encryption or letter by letter, is not found: it is the
//! user's choice to trust it with the value.

use std::sync::{Arc, OnceLock};

use aho_corasick::{AhoCorasick, Input};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::policy::Permit;

use super::placeholder::automaton;
use super::{Secret, SecretError, Secrets, form};

/// The most sets of secrets whose automaton is kept. Each host has one set; a guest cannot make more of
/// them than the user's entries do, but there may be many entries.
const MAX_KEPT: usize = 64;

/// The fewest bytes of a value's beginning that are kept from going on where none are replaced. Fewer are at
/// the end of many a message by chance, and whoever waits for its last byte would wait in vain.
pub(super) const MIN_HELD: usize = 4;

impl Secrets {
    /// What hides the values of a host's own secrets in its answers; `None` if there is nothing to hide.
    #[must_use]
    pub fn masker(&self, permit: &Permit) -> Option<Masker> {
        let own = |secret: &Secret| secret.mask && secret.is_for(permit);
        let own: Vec<usize> = (0..self.secrets.len()).filter(|&i| own(&self.secrets[i])).collect();
        if own.is_empty() {
            return None;
        }
        if let Some(masks) = self.maskers.find(&own) {
            return Some(Masker(masks));
        }
        let masks =
            Masks::new(own.iter().map(|&i| &self.secrets[i])).expect("that of all secrets could be built");
        let masks = Arc::new(masks);
        self.maskers.keep(own, &masks);
        Some(Masker(masks))
    }

    /// What finds the values of a host's own secrets where they cannot be replaced; `None` if there is
    /// nothing to hide.
    #[must_use]
    pub fn leak_scanner(&self, permit: &Permit) -> Option<LeakScanner> {
        let masks = self.masker(permit)?.0;
        Some(LeakScanner { masks, held: Zeroizing::default() })
    }
}

/// Hides the values of a host's secrets.
#[derive(Clone)]
pub struct Masker(Arc<Masks>);

impl Masker {
    /// Hides them in headers or trailers, whatever these are for. A header whose name has a value is taken
    /// out.
    pub fn headers(&self, headers: &mut HeaderMap) {
        let named: Vec<HeaderName> =
            headers.keys().filter(|name| self.0.is_in_name(name.as_str())).cloned().collect();
        for name in named {
            headers.remove(name);
        }
        for (name, value) in headers.iter_mut() {
            if is_length(name, value) || !self.0.find.is_match(value.as_bytes()) {
                continue;
            }
            let mut changed = Vec::new();
            self.0.replace(value.as_bytes(), &mut changed);
            // Placeholders are visible ASCII, so that this is for a defect of ours; nothing is better
            // than the value.
            *value = HeaderValue::try_from(changed).unwrap_or(HeaderValue::from_static(""));
        }
    }

    /// Hides them in a body.
    #[must_use]
    pub fn stream(&self) -> MaskStream {
        MaskStream { masks: Arc::clone(&self.0), held: Zeroizing::default() }
    }
}

/// Whether a header says how long the body is: a length must stay true, even if a value is such a number.
fn is_length(name: &HeaderName, value: &HeaderValue) -> bool {
    name == header::CONTENT_LENGTH && value.as_bytes().iter().all(u8::is_ascii_digit)
}

/// Hides values in a stream of bytes. What comes out is what the whole text would become, of values that
/// overlap the leftmost and longest replaced. No more is held back than what may be the beginning of a
/// value, so that an event at the end of what was fed is not late.
pub struct MaskStream {
    masks: Arc<Masks>,
    /// A beginning of a value, at the end of what was fed. Shorter than the longest value.
    held: Zeroizing<Vec<u8>>,
}

impl MaskStream {
    /// Takes some bytes and appends to `out` what is certain.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.held.is_empty() {
            let certain = self.masks.replace_certain(bytes, out);
            self.held.extend_from_slice(&bytes[certain..]);
            return;
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(bytes);
        let certain = self.masks.replace_certain(&text, out);
        self.held.extend_from_slice(&text[certain..]);
    }

    /// What is held back.
    #[cfg(test)]
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Appends to `out` what was held back: nothing follows.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.held);
        self.masks.replace(&text, out);
    }
}

/// Finds values in a stream of bytes, and says what must wait so that they are found before they are gone.
pub struct LeakScanner {
    masks: Arc<Masks>,
    /// As in [`MaskStream`].
    held: Zeroizing<Vec<u8>>,
}

impl LeakScanner {
    /// Takes some bytes; whether a value ends in them.
    #[must_use]
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        if self.held.is_empty() {
            return self.search(bytes);
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(bytes);
        self.search(&text)
    }

    /// How many bytes at the end of all that was fed must not go on before the next are fed, or there are
    /// no more: they may be the beginning of a value. Some of them may have gone on already.
    #[must_use]
    pub fn held(&self) -> usize {
        if self.held.len() < MIN_HELD { 0 } else { self.held.len() }
    }

    fn search(&mut self, text: &[u8]) -> bool {
        self.held.extend_from_slice(&text[self.masks.beginning(text, 0)..]);
        self.masks.find.is_match(text)
    }
}

/// Values in all their forms, and what takes their place.
struct Masks {
    find: AhoCorasick,
    patterns: Vec<Pattern>,
    /// Values as they would be in the name of a header.
    names: Vec<Zeroizing<String>>,
}

/// One form of a value.
struct Pattern {
    text: Zeroizing<Vec<u8>>,
    /// For each length of a beginning of the text, the length of its longest end that is a shorter
    /// beginning of it (Knuth, Morris and Pratt).
    borders: Vec<usize>,
    replacement: Vec<u8>,
}

impl Masks {
    /// # Errors
    ///
    /// [`SecretError::TooLarge`].
    fn new<'a>(secrets: impl Iterator<Item = &'a Secret> + Clone) -> Result<Self, SecretError> {
        let mut patterns: Vec<Pattern> = Vec::new();
        let mut add = |text: String, replacement: String| {
            if patterns.iter().all(|pattern| *pattern.text != text.as_bytes()) {
                patterns.push(Pattern::new(text.into_bytes(), replacement.into_bytes()));
            }
        };
        for secret in secrets.clone() {
            for form in form::FORMS {
                add(form(secret.value.expose()), form(&secret.placeholder));
            }
        }
        for secret in secrets.clone() {
            for core in form::base64_cores(secret.value.expose().as_bytes()) {
                add(core, secret.placeholder.clone());
            }
        }
        let texts: Vec<&[u8]> = patterns.iter().map(|pattern| pattern.text.as_slice()).collect();
        let find = automaton(&texts)?;
        let names =
            secrets.map(|secret| Zeroizing::new(secret.value.expose().to_ascii_lowercase())).collect();
        Ok(Self { find, patterns, names })
    }

    fn is_in_name(&self, name: &str) -> bool {
        self.names.iter().any(|value| name.contains(value.as_str()))
    }

    /// Appends the whole text with values replaced.
    fn replace(&self, text: &[u8], out: &mut Vec<u8>) {
        let end = self.replace_before(text, 0, text.len(), out);
        out.extend_from_slice(&text[end..]);
    }

    /// Appends the part of a text that is certain whatever follows, with values replaced. Returns the length
    /// of that part; the rest is a beginning of a value.
    fn replace_certain(&self, text: &[u8], out: &mut Vec<u8>) -> usize {
        let mut done = 0;
        loop {
            // No value that begins before this place can be longer than the text is.
            let certain = self.beginning(text, done);
            done = self.replace_before(text, done, certain, out);
            if done <= certain {
                out.extend_from_slice(&text[done..certain]);
                return certain;
            }
        }
    }

    /// Appends a text from `done` to the end of the last value that begins before `limit`. Returns that place.
    fn replace_before(&self, text: &[u8], mut done: usize, limit: usize, out: &mut Vec<u8>) -> usize {
        while done < limit
            && let Some(found) = self.find.find(Input::new(text).range(done..))
            && found.start() < limit
        {
            out.extend_from_slice(&text[done..found.start()]);
            out.extend_from_slice(&self.patterns[found.pattern().as_usize()].replacement);
            done = found.end();
        }
        done
    }

    /// Where the longest end of a text begins that is a beginning, but not all, of some value.
    fn beginning(&self, text: &[u8], from: usize) -> usize {
        let longest = self.patterns.iter().map(|pattern| pattern.beginning_at_end_of(&text[from..])).max();
        text.len() - longest.unwrap_or_default()
    }
}

impl Pattern {
    fn new(text: Vec<u8>, replacement: Vec<u8>) -> Self {
        let mut borders = vec![0; text.len() + 1];
        let mut border = 0;
        for length in 2..=text.len() {
            let byte = text[length - 1];
            while border > 0 && text[border] != byte {
                border = borders[border];
            }
            border += usize::from(text[border] == byte);
            borders[length] = border;
        }
        Self { text: Zeroizing::new(text), borders, replacement }
    }

    /// Length of the longest end of a text that is a beginning, but not all, of this pattern.
    fn beginning_at_end_of(&self, text: &[u8]) -> usize {
        let window = text.len().min(self.text.len() - 1);
        let mut length = 0;
        for &byte in &text[text.len() - window..] {
            while length > 0 && self.text[length] != byte {
                length = self.borders[length];
            }
            length += usize::from(self.text[length] == byte);
        }
        length
    }
}

/// The automata in use, by the secrets that they are for. A list that only grows, so that it needs no lock.
#[derive(Default)]
pub(super) struct Cache(OnceLock<Box<Kept>>);

struct Kept {
    secrets: Vec<usize>,
    masks: Arc<Masks>,
    next: Cache,
}

impl Cache {
    /// Checks that the automaton of all secrets can be built, so that any of some of them can.
    ///
    /// # Errors
    ///
    /// [`SecretError::TooLarge`].
    pub(super) fn new(secrets: &[Secret]) -> Result<Self, SecretError> {
        let cache = Self::default();
        let masks = Masks::new(secrets.iter())?;
        // Most sandboxes have one secret, and need no other.
        cache.keep(Vec::from_iter(0..secrets.len()), &Arc::new(masks));
        Ok(cache)
    }

    fn find(&self, secrets: &[usize]) -> Option<Arc<Masks>> {
        let mut here = self.0.get();
        while let Some(kept) = here {
            if kept.secrets == secrets {
                return Some(Arc::clone(&kept.masks));
            }
            here = kept.next.0.get();
        }
        None
    }

    /// Keeps the automaton, unless there are too many.
    fn keep(&self, secrets: Vec<usize>, masks: &Arc<Masks>) {
        let mut kept = Box::new(Kept { secrets, masks: Arc::clone(masks), next: Self::default() });
        let mut cache = self;
        for _ in 0..MAX_KEPT {
            let Err(again) = cache.0.set(kept) else { return };
            let Some(other) = cache.0.get() else { return };
            (kept, cache) = (again, &other.next);
        }
    }
}
