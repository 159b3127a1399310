//! What clients are shown and what they answer. They never see a value, nor what is theirs not to change;
//! an answer that cannot be followed to the letter is a failure.

use api::hook::{HeaderMap as Answered, HookReply, MultiMap, Values};
use api::network::Action;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

use super::query;
use crate::denial::Reason;

/// The most headers in an answer, and the most bytes in them: as much as servers take.
const MAX_HEADERS: usize = 256;
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Why a client could not decide.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HookFailure {
    /// Nobody takes the call, or the connection broke off.
    #[error("the callback cannot be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("the callback did not answer in time")]
    TimedOut,
    /// What it answers is longer than we read.
    #[error("the callback's answer is too long")]
    TooLong,
    /// It says so.
    #[error("the callback failed")]
    Failed,
    /// Not what an answer can be.
    #[error("the callback answered with {0}")]
    Nonsense(&'static str),
}

/// Does what the client of `rule` has answered, if anything, by `follow`; else says why the exchange is
/// refused, and by what.
pub(crate) fn obey(
    reply: Result<HookReply, HookFailure>,
    rule: String,
    follow: impl FnOnce(HookReply) -> Result<(), HookFailure>,
) -> Result<(), (Reason, String)> {
    let reply = reply.and_then(|reply| match reply.error.as_deref() {
        None | Some("") => Ok(reply),
        Some(_) => Err(HookFailure::Failed),
    });
    match reply {
        Ok(reply) if reply.action == Some(Action::Block) => Err((Reason::RuleBlock, rule)),
        reply => reply.and_then(follow).map_err(|failure| (Reason::HookFailed, format!("{rule}: {failure}"))),
    }
}

/// Headers as clients know them: `X-Request-Id`, not `x-request-id`.
pub(crate) fn shown_headers(headers: &HeaderMap) -> MultiMap {
    let mut shown = MultiMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        shown.entry(canonical(name.as_str())).or_default().push(value);
    }
    shown
}

/// A query, decoded. A parameter that is there once is one text.
pub(crate) fn shown_query(query: Option<&str>) -> Answered {
    let mut shown = MultiMap::new();
    for (name, value) in query::parameters(query.unwrap_or_default()) {
        shown.entry(name).or_default().push(value);
    }
    let values = |values: Vec<String>| match <[String; 1]>::try_from(values) {
        Ok([value]) => Values::One(value),
        Err(values) => Values::Many(values),
    };
    shown.into_iter().map(|(name, all)| (name, values(all))).collect()
}

/// Headers of an answer. Lengths are left out, they are ours; so is the host, if it is the same.
pub(crate) fn read_headers(
    answered: &Answered,
    is_framing: fn(&HeaderName) -> bool,
    host: &str,
) -> Result<HeaderMap, HookFailure> {
    let mut headers = HeaderMap::new();
    let mut bytes = 0;
    for (name, values) in answered {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| HookFailure::Nonsense("what is no name of a header"))?;
        let is_same_host = || values.as_slice().iter().all(|value| value.eq_ignore_ascii_case(host));
        if name == header::CONTENT_LENGTH || (name == header::HOST && is_same_host()) {
            continue;
        }
        if is_framing(&name) {
            return Err(HookFailure::Nonsense("a header that is not its to change"));
        }
        for value in values.as_slice() {
            bytes += name.as_str().len() + value.len();
            if headers.len() == MAX_HEADERS || bytes > MAX_HEADER_BYTES {
                return Err(HookFailure::Nonsense("too many headers"));
            }
            let value = HeaderValue::from_str(value)
                .map_err(|_| HookFailure::Nonsense("a value that no header can have"))?;
            headers.append(name.clone(), value);
        }
    }
    Ok(headers)
}

/// A query of an answer.
pub(crate) fn read_query(parameters: &Answered) -> Option<String> {
    let pairs = parameters.iter().flat_map(|(name, values)| {
        values.as_slice().iter().map(move |value| (name.as_str(), value.as_str()))
    });
    query::from_parameters(pairs)
}

/// Each part between hyphens with a capital.
fn canonical(name: &str) -> String {
    let mut after_hyphen = true;
    let letter = |c: char| {
        let letter = if after_hyphen { c.to_ascii_uppercase() } else { c };
        after_hyphen = c == '-';
        letter
    };
    name.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use api::hook::Values;
    use http::header::{HeaderMap, HeaderName};

    use super::{HookFailure, canonical, read_headers, shown_query};

    fn none_is_framing(_: &HeaderName) -> bool {
        false
    }

    #[test]
    fn clients_see_the_names_they_know() {
        assert_eq!(canonical("x-request-id"), "X-Request-Id");
        assert_eq!(canonical("etag"), "Etag");
    }

    #[test]
    fn a_parameter_that_is_there_once_is_a_text() {
        let shown = shown_query(Some("a=1&b=2&b=3%20&b=4"));
        assert_eq!(shown["a"], Values::One("1".to_owned()));
        assert_eq!(shown["b"], Values::Many(vec!["2".to_owned(), "3 ".to_owned(), "4".to_owned()]));
    }

    #[test]
    fn an_answer_with_another_host_is_nonsense() {
        let answer = |name: &str, value: &str| [(name.to_owned(), Values::One(value.to_owned()))].into();
        let framing = |name: &HeaderName| name == "host";
        assert_eq!(read_headers(&answer("Host", "A"), framing, "a"), Ok(HeaderMap::new()));
        assert!(matches!(read_headers(&answer("Host", "b"), framing, "a"), Err(HookFailure::Nonsense(_))));
        assert_eq!(read_headers(&answer("Content-Length", "7"), framing, "a"), Ok(HeaderMap::new()));
        for (name, value) in [("a b", "c"), ("a", "b\r\nc: d"), ("", "x")] {
            let read = read_headers(&answer(name, value), none_is_framing, "a");
            assert!(matches!(read, Err(HookFailure::Nonsense(_))), "{name:?}");
        }
    }
}
