//! Queries: parameters are set and deleted by their decoded names, and what is not touched stays as it
//! was, byte for byte.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Parameters with their decoded names and values, in order.
pub(crate) fn parameters(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|piece| !piece.is_empty()).map(|piece| {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        (decoded(name), decoded(value))
    })
}

/// A query of these parameters; `None` if there are none.
pub(crate) fn from_parameters<'a>(parameters: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let mut query = None;
    for (name, value) in parameters {
        append(&mut query, name, value);
    }
    query
}

/// Leaves a parameter out, however often it is there.
pub(crate) fn delete(query: &mut Option<String>, name: &str) {
    let Some(text) = query.as_deref() else { return };
    if !text.split('&').any(|piece| is_named(piece, name)) {
        return;
    }
    let kept: Vec<&str> = text.split('&').filter(|piece| !is_named(piece, name)).collect();
    *query = (!kept.is_empty()).then(|| kept.join("&"));
}

/// Gives a parameter this value, in the place of its first.
pub(crate) fn set(query: &mut Option<String>, name: &str, value: &str) {
    let text = query.as_deref().unwrap_or_default();
    let Some(first) = text.split('&').position(|piece| is_named(piece, name)) else {
        return append(query, name, value);
    };
    let mut pieces: Vec<Cow<'_, str>> = Vec::new();
    for (at, piece) in text.split('&').enumerate() {
        if at == first {
            pieces.push(encoded(name, value).into());
        } else if !is_named(piece, name) {
            pieces.push(piece.into());
        }
    }
    *query = Some(pieces.join("&"));
}

fn append(query: &mut Option<String>, name: &str, value: &str) {
    let parameter = encoded(name, value);
    match query {
        Some(query) if !query.is_empty() => {
            query.push('&');
            query.push_str(&parameter);
        }
        _ => *query = Some(parameter),
    }
}

fn encoded(name: &str, value: &str) -> String {
    format!("{}={}", utf8_percent_encode(name, RESERVED), utf8_percent_encode(value, RESERVED))
}

fn is_named(piece: &str, name: &str) -> bool {
    !piece.is_empty() && decoded(piece.split_once('=').map_or(piece, |(name, _)| name)) == name
}

/// Decoded as forms are: servers that take `+` for itself do so in values that we do not touch.
fn decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{delete, from_parameters, parameters, set};

    #[test]
    fn what_is_not_touched_stays_byte_for_byte() {
        let mut query = Some("a=%41&b&c=x+y&a=2&=&".to_owned());
        set(&mut query, "b", "1 2&3");
        assert_eq!(query.as_deref(), Some("a=%41&b=1%202%263&c=x+y&a=2&=&"));
        delete(&mut query, "a");
        assert_eq!(query.as_deref(), Some("b=1%202%263&c=x+y&=&"));
    }

    #[test]
    fn an_encoded_name_does_not_get_round_a_deletion() {
        let mut query = Some("%64ebug=1".to_owned());
        delete(&mut query, "debug");
        assert_eq!(query, None);
    }

    #[test]
    fn setting_twice_leaves_one() {
        let mut query = Some("a=1&a=2".to_owned());
        set(&mut query, "a", "3");
        assert_eq!(query.as_deref(), Some("a=3"));
    }

    proptest! {
        #[test]
        fn what_is_made_of_parameters_reads_as_them(pairs in proptest::collection::vec(("\\PC{1,6}", "\\PC{0,6}"), 0..5)) {
            let query = from_parameters(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let read: Vec<_> = parameters(query.as_deref().unwrap_or_default()).collect();
            prop_assert_eq!(read, pairs);
        }
    }
}
