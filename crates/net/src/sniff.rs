//! What a connection speaks, by what its client says first.
//!
//! Pure, and fails closed: [`Protocol::Other`] is only what certainly no server takes for TLS or an HTTP
//! request, because its content is not looked at. When in doubt it is HTTP, whose parser is strict.

/// How a connection to an HTTP/2 server begins, RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Most bytes that are looked at. Servers accept request lines of this length; whoever sends more
/// without ending its first line gets the parser of HTTP, which refuses it.
pub const MAX_LINE: usize = 8 * 1024;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Tells TLS from the rest, or a ClientHello in the form of SSL 2, which servers still take and we
    /// refuse.
    Tls,
    /// HTTP/1, or what some server may take for it.
    Http1,
    /// HTTP/2 without having asked.
    Http2,
    /// Certainly none of these.
    Other,
}

/// Tells by a connection's first bytes what it speaks; `None` if they are too few: no server acts on them
/// before there are more.
#[must_use]
pub fn classify(first: &[u8]) -> Option<Protocol> {
    let looked_at = &first[..first.len().min(MAX_LINE)];
    match tls(looked_at) {
        Verdict::Yes => return Some(Protocol::Tls),
        Verdict::More => return None,
        Verdict::No => {}
    }
    if first.starts_with(PREFACE) {
        return Some(Protocol::Http2);
    }
    if PREFACE.starts_with(looked_at) {
        return None;
    }
    match request_line(looked_at) {
        Verdict::Yes => Some(Protocol::Http1),
        Verdict::No => Some(Protocol::Other),
        Verdict::More if looked_at.len() == MAX_LINE => Some(Protocol::Http1),
        Verdict::More => None,
    }
}

enum Verdict {
    Yes,
    No,
    More,
}

/// A record of a handshake, or SSL 2's hello (RFC 5246, E.2): two bytes of length, the highest bit set, type 1,
/// version.
fn tls(first: &[u8]) -> Verdict {
    match *first {
        [] | [0x16] => Verdict::More,
        [0x16, 0x03, ..] => Verdict::Yes,
        [length, ..] if length & 0x80 == 0 => Verdict::No,
        [_] | [_, _] | [_, _, 1] | [_, _, 1, 0] => Verdict::More,
        [_, _, 1, 3, ..] | [_, _, 1, 0, 2, ..] => Verdict::Yes,
        _ => Verdict::No,
    }
}

/// A line that some server may take for the first of a request. Servers are lenient: they skip empty lines
/// and spaces before it, take any white space for a space, and any version that looks like one.
fn request_line(first: &[u8]) -> Verdict {
    let Some((&byte, _)) = first.split_first() else { return Verdict::More };
    if is_space(byte) || byte == b'\n' {
        return Verdict::Yes;
    }
    let Some(end) = first.iter().position(|&byte| !is_token(byte)) else { return Verdict::More };
    if end == 0 {
        return Verdict::No;
    }
    let (method, rest) = first.split_at(end);
    match *rest {
        // The end of the line: a word alone is no request.
        [b'\n', ..] | [b'\r', b'\n', ..] => return Verdict::No,
        [b'\r'] => return Verdict::More,
        [byte, ..] if is_space(byte) => {}
        _ => return Verdict::No,
    }
    if METHODS.contains(&method) {
        return Verdict::Yes;
    }
    // What ends the line. No client's method has digits in it, and no server reads a zero byte behind such a
    // one in a request: something like git.
    let is_end = |byte: &u8| *byte == b'\n' || (*byte == 0 && !is_word(method));
    let line = rest.split(is_end).next().unwrap_or(rest);
    if has_version(line) || method.eq_ignore_ascii_case(b"PROXY") {
        Verdict::Yes
    } else if line.len() < rest.len() {
        // A whole line, of something like SSH or IRC.
        Verdict::No
    } else {
        Verdict::More
    }
}

/// Letters, perhaps with hyphens: what methods are made of.
fn is_word(method: &[u8]) -> bool {
    method.iter().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_'))
}

/// Methods with which a line is a request even without a version (HTTP/0.9); any other, in any case, is one
/// with a version only.
const METHODS: [&[u8]; 9] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];

/// `HTTP/1`, or the version of anything alike (RTSP, ICAP), as a word of the line.
fn has_version(line: &[u8]) -> bool {
    line.split(|&byte| is_space(byte)).any(|word| {
        let Some(slash) = word.iter().position(|byte| !byte.is_ascii_alphabetic()) else { return false };
        slash > 0 && word[slash] == b'/' && word.get(slash + 1).is_some_and(u8::is_ascii_digit)
    })
}

/// White space that a lenient server takes for a space, RFC 9112, 3.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r')
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
