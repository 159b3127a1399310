//! What a connection speaks, by what its client says first.
//!
//! Pure, and fails closed: [`Protocol::Other`] is only what certainly no server takes for TLS or an HTTP
//! request, because its content is not looked at. When in doubt it is HTTP, whose parser is strict.

/// How a connection to an HTTP/2 server begins, RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Types of records, RFC 8446, B.1.
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// Most bytes that are looked at. Servers accept request lines of this length; whoever sends more
/// without ending its first line gets the parser of HTTP, which refuses it.
pub const MAX_LINE: usize = 8 * 1024;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Records of TLS, also such as we refuse and servers take: what is not a ClientHello but comes before
    /// it, odd versions, a ClientHello in the form of SSL 2.
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

/// How a record of TLS begins that some server reads before or as a ClientHello, or SSL 2's hello.
fn tls(first: &[u8]) -> Verdict {
    match *first {
        [] | [CHANGE_CIPHER_SPEC..=APPLICATION_DATA] => Verdict::More,
        [CHANGE_CIPHER_SPEC..=APPLICATION_DATA, 3, ..] => Verdict::Yes,
        [kind @ CHANGE_CIPHER_SPEC..=HANDSHAKE, ..] => odd_record(kind, first),
        [byte, ..] if byte & 0x80 != 0 => old_hello(first),
        _ => Verdict::No,
    }
}

/// A record of another version. Go takes any below 16.0, s2n any at all. Both drop alerts that come before the
/// hello, and s2n drops changes of the cipher. MongoDB's messages begin with their length and number, both
/// little-endian: they may look alike, but for what is in the record.
fn odd_record(kind: u8, first: &[u8]) -> Verdict {
    let [_, _, _, high, low, content, ..] = *first else { return Verdict::More };
    let is_one = match kind {
        CHANGE_CIPHER_SPEC => content == 1 && [high, low] == [0, 1],
        // Warnings and errors. Some servers drop what else is in the record, too.
        ALERT => matches!(content, 1 | 2) && [high, low] != [0, 0],
        // A ClientHello.
        _ => content == 1 && [high, low] != [0, 0],
    };
    if is_one { Verdict::Yes } else { Verdict::No }
}

/// SSL 2's hello (RFC 5246, E.2): two bytes of length, the highest bit set, type 1, version; the lengths of suites,
/// session and challenge. With odd versions, which s2n takes, the latter two tell, as neither exceeds 32.
fn old_hello(first: &[u8]) -> Verdict {
    match *first {
        [_] | [_, _] | [_, _, 1] | [_, _, 1, 0] => Verdict::More,
        [_, _, 1, 3, ..] | [_, _, 1, 0, 2, ..] => Verdict::Yes,
        [_, _, 1, ..] if first.len() < 10 => Verdict::More,
        [_, _, 1, _, _, _, _, 0, _, 0, ..] => Verdict::Yes,
        _ => Verdict::No,
    }
}

/// A line that some server may take for the first of a request. Servers are lenient: they skip empty lines
/// and spaces before it, take any white space for a space, and any version that looks like one.
fn request_line(first: &[u8]) -> Verdict {
    // Binary protocols begin with such bytes, too: what follows tells.
    let start = first.iter().position(|&byte| !is_separator(byte)).unwrap_or(first.len());
    let first = &first[start..];
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
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r') || is_separator(byte)
}

/// What Latin-1 has of white space besides, and Python's `http.server` splits at.
fn is_separator(byte: u8) -> bool {
    matches!(byte, 0x1c..=0x1f | 0x85 | 0xa0)
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
