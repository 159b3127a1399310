//! The forms in which a server may write a text that it has been sent: in URLs, and those as parameters of
//! others, in JSON, HTML, base64.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

/// The ways to write a text, the text itself first. They are in the same order for every text.
pub(super) const FORMS: [fn(&str) -> String; 21] = [
    str::to_owned,
    |text| percent(text, UNRESERVED),
    |text| lower_escapes(&percent(text, UNRESERVED)),
    |text| percent(text, COMPONENT),
    |text| percent(text, QUERY),
    form,
    |text| percent(&percent(text, UNRESERVED), UNRESERVED),
    |text| percent(&lower_escapes(&percent(text, UNRESERVED)), UNRESERVED),
    |text| percent(&percent(text, COMPONENT), COMPONENT),
    |text| form(&form(text)),
    |text| json(text, |_| false),
    |text| json(text, |_| false).replace('/', "\\/"),
    |text| json(text, |c| !c.is_ascii()),
    |text| json(text, |c| !c.is_ascii()).replace('/', "\\/"),
    |text| json(text, |c| matches!(c, '<' | '>' | '&')),
    json_of_gson,
    json_of_net,
    |text| html(text, "&quot;", "&#x27;"),
    |text| html(text, "&#34;", "&#39;"),
    html_of_handlebars,
    html_of_mustache,
];

/// The fewest characters of base64 that are taken for a text: fewer would be found by chance.
const MIN_CORE: usize = 9;

/// What RFC 3986 leaves as it is.
pub(super) const UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What JavaScript's `encodeURIComponent` changes.
const COMPONENT: &AsciiSet = &UNRESERVED.remove(b'!').remove(b'*').remove(b'\'').remove(b'(').remove(b')');

/// What a URL parser changes in a query (WHATWG URL).
const QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'\'');

/// What a form changes (WHATWG URL), but for the space.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// The characters that are in the base64 of anything with `text` in it: for each of the three ways to lie
/// across groups of three bytes those characters that come of `text` alone, in both alphabets.
pub(super) fn base64_cores(text: &[u8]) -> Vec<String> {
    let mut cores = Vec::new();
    for before in 0..3 {
        let bytes = [&[0; 2][..before], text].concat();
        // A character has six bits.
        let characters = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        for alphabet in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let core = alphabet.encode(&bytes)[characters.clone()].to_owned();
            if core.len() >= MIN_CORE && !cores.contains(&core) {
                cores.push(core);
            }
        }
    }
    cores
}

fn percent(text: &str, set: &'static AsciiSet) -> String {
    utf8_percent_encode(text, set).to_string()
}

/// As forms are sent.
fn form(text: &str) -> String {
    percent(text, FORM).replace("%20", "+")
}

/// Percent-encoded text, all of whose `%` begin an escape, with its digits in lower case.
fn lower_escapes(text: &str) -> String {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| {
        let (digits, rest) = part.split_at(2);
        out + "%" + &digits.to_ascii_lowercase() + rest
    })
}

/// JSON's escapes, and `\u` for what `escaped` says.
fn json(text: &str, escaped: fn(char) -> bool) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            _ if escaped(c) => out.extend(units(c).map(|unit| format!("\\u{unit:04x}"))),
            _ => out.push(c),
        }
    }
    out
}

/// As Gson escapes, unless it is told not to.
fn json_of_gson(text: &str) -> String {
    json(text, |c| matches!(c, '<' | '>' | '&' | '=' | '\''))
}

/// As .NET's serialiser escapes.
fn json_of_net(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' | '<' | '>' | '&' | '\'' | '+' | '`' => {
                out.extend(units(c).map(|unit| format!("\\u{unit:04X}")));
            }
            _ if c.is_ascii() => out.push(c),
            _ => out.extend(units(c).map(|unit| format!("\\u{unit:04X}"))),
        }
    }
    out
}

fn units(c: char) -> impl Iterator<Item = u16> {
    c.encode_utf16(&mut [0; 2]).to_vec().into_iter()
}

fn html(text: &str, quote: &str, apostrophe: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', quote).replace('\'', apostrophe)
}

/// As Handlebars escapes.
fn html_of_handlebars(text: &str) -> String {
    html(text, "&quot;", "&#x27;").replace('=', "&#x3D;").replace('`', "&#x60;")
}

/// As mustache.js escapes.
fn html_of_mustache(text: &str) -> String {
    let text = html(text, "&quot;", "&#39;").replace('/', "&#x2F;");
    text.replace('=', "&#x3D;").replace('`', "&#x60;")
}
