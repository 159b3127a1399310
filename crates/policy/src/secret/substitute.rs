//! Values in the place of placeholders: in the values of headers and in the query, on the way to the
//! secret's own hosts, and nowhere else. A placeholder on its way elsewhere stops the request.
//!
//! It is one pass over what the guest has sent: what a value brings is not looked at again.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{percent_decode, utf8_percent_encode};

use crate::denial::{Denial, Reason};
use crate::policy::Permit;

use super::placeholder::Finder;
use super::{Secrets, form};

/// The most bytes that the values may bring to one request. Stops a guest from making a head of many
/// megabytes of one with many placeholders.
const MAX_INSERTED: usize = 128 * 1024;

/// How often percent-encoding is taken off to find a placeholder on its way to a wrong host.
const MAX_ENCODINGS: usize = 3;

/// Headers that say where a message goes and where it ends: they are decided on before, and stay.
const FRAMING: [HeaderName; 8] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
];

/// Base64 as clients write it, with padding or without.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const BASIC: [GeneralPurpose; 2] =
    [GeneralPurpose::new(&alphabet::STANDARD, LENIENT), GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT)];

impl Secrets {
    /// Puts values into a request that is permitted for a host: into the values of its headers, those of
    /// `Basic` inside their base64, and percent-encoded into its query. Says whether there was one.
    ///
    /// # Errors
    ///
    /// [`Reason::SecretWrongHost`] and [`Reason::PlainHttpSecret`] if a placeholder is anywhere in the
    /// head, in its path and encoded too, and its value may not go to that host, and
    /// [`Reason::SecretTooLarge`]. The request is then not to be sent.
    pub fn substitute(
        &self,
        permit: &Permit,
        https: bool,
        headers: &mut HeaderMap,
        path: &str,
        query: &mut Option<String>,
    ) -> Result<bool, Denial> {
        let Some(finder) = &self.finder else { return Ok(false) };
        let texts = headers.values().map(HeaderValue::as_bytes);
        for text in texts.chain([path.as_bytes()]).chain(query.as_deref().map(str::as_bytes)) {
            self.check(finder, permit, https, text)?;
        }
        for secret in headers.keys().flat_map(|name| finder.in_name(name.as_str())) {
            self.secrets[secret].check(permit, https)?;
        }
        let mut insertion = Insertion { secrets: self, finder, permit, https, inserted: 0 };
        for (name, value) in headers.iter_mut().filter(|(name, _)| !FRAMING.contains(name)) {
            if let Some(changed) = insertion.header(value.as_bytes())? {
                // A value has no byte that a header cannot have, so that this is for a defect of ours.
                *value = HeaderValue::try_from(changed)
                    .map_err(|_| insertion.denial(Reason::MalformedRequest).by(name.as_str()))?;
                value.set_sensitive(true);
            }
        }
        if let Some(text) = query
            && let Some(changed) = insertion.query(text)?
        {
            *text = changed;
        }
        Ok(insertion.inserted > 0)
    }
}

impl Secrets {
    /// Checks every placeholder in a text that goes to a host, encoded or not.
    fn check(&self, finder: &Finder, permit: &Permit, https: bool, text: &[u8]) -> Result<(), Denial> {
        let mut text = Cow::Borrowed(text);
        for _ in 0..=MAX_ENCODINGS {
            for secret in finder.any(&text) {
                self.secrets[secret].check(permit, https)?;
            }
            if let Some(decoded) = basic(&text) {
                for (secret, _) in finder.plain(&decoded) {
                    self.secrets[secret].check(permit, https)?;
                }
            }
            match Cow::from(percent_decode(&text)) {
                Cow::Borrowed(_) => break,
                Cow::Owned(decoded) => text = Cow::Owned(decoded),
            }
        }
        Ok(())
    }
}

/// Puts values into one request.
struct Insertion<'a> {
    secrets: &'a Secrets,
    finder: &'a Finder,
    permit: &'a Permit,
    https: bool,
    /// Bytes of values so far.
    inserted: usize,
}

impl Insertion<'_> {
    /// A header's value, if it changes.
    fn header(&mut self, text: &[u8]) -> Result<Option<Vec<u8>>, Denial> {
        if let Some(decoded) = basic(text)
            && let Some(changed) = self.text(&decoded)?
        {
            let scheme = &text[..text.len() - credentials(text).map_or(0, <[u8]>::len)];
            return Ok(Some([scheme, STANDARD.encode(changed).as_bytes()].concat()));
        }
        self.text(text)
    }

    /// A text as it is, if it changes.
    fn text(&mut self, text: &[u8]) -> Result<Option<Vec<u8>>, Denial> {
        let mut out = Vec::new();
        let mut copied = 0;
        for (secret, range) in self.finder.plain(text) {
            out.extend_from_slice(&text[copied..range.start]);
            out.extend_from_slice(self.value(secret)?.as_bytes());
            copied = range.end;
        }
        if copied == 0 {
            return Ok(None);
        }
        out.extend_from_slice(&text[copied..]);
        Ok(Some(out))
    }

    /// A query, if it changes. Placeholders are looked for in what it means; what else it has stays as it
    /// is written.
    fn query(&mut self, text: &str) -> Result<Option<String>, Denial> {
        let (decoded, ends) = decode(text);
        let mut out = String::new();
        let mut copied = 0;
        for (secret, range) in self.finder.plain(&decoded) {
            let value = self.value(secret)?;
            let start = range.start.checked_sub(1).map_or(0, |before| ends[before]);
            // Placeholders are ASCII, and so are escapes: these are no places inside a character.
            out.push_str(text.get(copied..start).unwrap_or_default());
            out.extend(utf8_percent_encode(value, form::UNRESERVED));
            copied = ends[range.end - 1];
        }
        if copied == 0 {
            return Ok(None);
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        Ok(Some(out))
    }

    /// The value of a secret, if it may go to that host: asked again for every single one.
    fn value(&mut self, secret: usize) -> Result<&str, Denial> {
        let secret = &self.secrets.secrets[secret];
        secret.check(self.permit, self.https)?;
        let value = secret.value.expose();
        self.inserted += value.len();
        if self.inserted > MAX_INSERTED {
            return Err(self.denial(Reason::SecretTooLarge).by(format!("secret {}", secret.name)));
        }
        Ok(value)
    }

    fn denial(&self, reason: Reason) -> Denial {
        Denial::new(reason, self.permit.host(), self.permit.port())
    }
}

/// What is behind the scheme of a `Basic` header.
fn credentials(text: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = text.split_at_checked(b"Basic ".len())?;
    scheme.eq_ignore_ascii_case(b"Basic ").then(|| rest.trim_ascii())
}

/// User and password of a `Basic` header (RFC 7617), if it is one.
fn basic(text: &[u8]) -> Option<Vec<u8>> {
    let credentials = credentials(text)?;
    BASIC.iter().find_map(|base64| base64.decode(credentials).ok())
}

/// A text without percent-encoding, and where in the text each of its bytes ends. A `%` that begins no
/// escape stays.
fn decode(text: &str) -> (Vec<u8>, Vec<usize>) {
    let bytes = text.as_bytes();
    let (mut decoded, mut ends) = (Vec::with_capacity(bytes.len()), Vec::with_capacity(bytes.len()));
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = bytes.get(at + 1..at + 3).filter(|_| byte == b'%');
        let escaped = escape.and_then(|digits| Some(hex(digits[0])? * 16 + hex(digits[1])?));
        at += if escaped.is_some() { 3 } else { 1 };
        decoded.push(escaped.unwrap_or(byte));
        ends.push(at);
    }
    (decoded, ends)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}
