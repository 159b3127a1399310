//! The head of one request: its lines, and what they say of the body's length.

use super::{MAX_FIELDS, Violation};

/// The longest method, bytes; the longest that is registered has 18.
const MAX_METHOD: usize = 32;

/// Digits of a length: stops lengths that overflow.
const MAX_LENGTH_DIGITS: usize = 18;

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// After the last chunk and trailers.
    Chunked,
}

/// What a head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) framing: Framing,
    /// It is HTTP/1.0.
    pub(super) is_old: bool,
}

/// Checks a head, with the empty line at its end.
pub(super) fn check(head: &[u8]) -> Result<Head, Violation> {
    let head = head.strip_suffix(b"\r\n\r\n").ok_or(Violation::LineEnd)?;
    let mut lines = Lines(Some(head));
    let is_old = request_line(lines.next().ok_or(Violation::RequestLine)??)?;
    let mut found = Found::default();
    for (count, line) in lines.enumerate() {
        if count == MAX_FIELDS {
            return Err(Violation::TooManyFields);
        }
        let (name, value) = field(line?)?;
        found.add(name, value)?;
    }
    if found.hosts > 1 || (found.hosts == 0 && !is_old) {
        return Err(Violation::Host);
    }
    let framing = match (found.chunked, found.length) {
        (true, Some(_)) => return Err(Violation::TransferEncoding),
        (true, None) if is_old => return Err(Violation::TransferEncoding),
        (true, None) => Framing::Chunked,
        (false, length) => Framing::Length(length.unwrap_or(0)),
    };
    Ok(Head { framing, is_old })
}

/// Checks the beginning of a head, of which so many bytes were checked before: refuses early what has no
/// chance, so that nobody waits for the rest of it.
pub(super) fn check_start(start: &[u8], checked: usize) -> Result<(), Violation> {
    let method = start.iter().position(|&byte| byte == b' ').unwrap_or(start.len());
    if method > MAX_METHOD || !start[..method].iter().all(|&byte| is_token(byte)) {
        return Err(Violation::RequestLine);
    }
    let mut ends = (checked..start.len()).filter(|&at| start[at] == b'\n');
    let Some(first) = ends.next() else { return Ok(()) };
    if !start[..first].contains(&b'\n') {
        request_line(start[..first].strip_suffix(b"\r").ok_or(Violation::LineEnd)?)?;
    }
    if std::iter::once(first).chain(ends).all(|at| start[..at].ends_with(b"\r")) {
        Ok(())
    } else {
        Err(Violation::LineEnd)
    }
}

#[derive(Debug, Default)]
struct Found {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
}

impl Found {
    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Violation> {
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let is_number =
                (1..=MAX_LENGTH_DIGITS).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
            if self.length.is_some() || !is_number {
                return Err(Violation::ContentLength);
            }
            self.length = Some(value.iter().fold(0, |length, &digit| length * 10 + u64::from(digit - b'0')));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::TransferEncoding);
            }
            self.chunked = true;
        }
        Ok(())
    }
}

/// Checks a request line, and says whether it is of HTTP/1.0.
fn request_line(line: &[u8]) -> Result<bool, Violation> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Violation::RequestLine);
    };
    let is_method = (1..=MAX_METHOD).contains(&method.len()) && method.iter().all(|&byte| is_token(byte));
    // Letters beyond ASCII are sent as they are by some clients, and mean the same to every parser.
    let is_target = !target.is_empty() && target.iter().all(|&byte| byte > b' ' && byte != 0x7f);
    if !is_method || !is_target {
        return Err(Violation::RequestLine);
    }
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        _ => Err(Violation::Version),
    }
}

/// Splits a field into its name and its value, without the spaces around it.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if line.first().is_some_and(|&byte| byte == b' ' || byte == b'\t') {
        return Err(Violation::Fold);
    }
    let colon = line.iter().position(|&byte| byte == b':').ok_or(Violation::FieldName)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
        return Err(Violation::FieldName);
    }
    if !value.iter().all(|&byte| is_value(byte)) {
        return Err(Violation::FieldValue);
    }
    Ok((name, value.trim_ascii()))
}

/// Whether a field belongs into the head: it says where a message goes or ends.
pub(super) fn is_of_framing(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 8] = [
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"upgrade",
        b"te",
        b"trailer",
        b"expect",
    ];
    NAMES.iter().any(|framing| name.eq_ignore_ascii_case(framing))
}

/// A character of a value (RFC 9110, 5.5).
pub(super) fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A character of a token (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Splits at CRLF, and refuses a CR or LF alone.
struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Violation>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.take()?;
        let Some(end) = rest.iter().position(|&byte| byte == b'\r' || byte == b'\n') else {
            return Some(Ok(rest));
        };
        let Some(next) = rest[end..].strip_prefix(b"\r\n") else { return Some(Err(Violation::LineEnd)) };
        self.0 = Some(next);
        Some(Ok(&rest[..end]))
    }
}
