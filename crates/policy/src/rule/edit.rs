//! What rules change of a request or response, checked when they are compiled.

use api::network::RuleSpec;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{RuleProblem, replacer};
use crate::body::Replacer;
use crate::request::{Head, query};

/// Changes to a request.
#[derive(Debug)]
pub(crate) struct RequestEdit {
    headers: HeaderEdit,
    set_query: Vec<(String, String)>,
    delete_query: Vec<String>,
    path: Option<String>,
}

impl RequestEdit {
    pub(super) fn of(spec: &RuleSpec) -> Result<Self, RuleProblem> {
        let path = spec.rewrite_path.as_deref().filter(|path| !path.is_empty());
        if let Some(path) = path
            && !is_valid_path(path)
        {
            return Err(RuleProblem::Path(path.to_owned()));
        }
        let set = spec.set_headers.iter();
        Ok(Self {
            headers: HeaderEdit::new(set, &spec.delete_headers, is_request_framing)?,
            set_query: spec.set_query.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            delete_query: spec.delete_query.clone(),
            path: path.map(str::to_owned),
        })
    }

    pub(crate) fn apply(&self, request: &mut Head) {
        self.headers.apply(&mut request.headers);
        for name in &self.delete_query {
            query::delete(&mut request.query, name);
        }
        for (name, value) in &self.set_query {
            query::set(&mut request.query, name, value);
        }
        if let Some(path) = &self.path {
            request.path.clone_from(path);
        }
    }
}

/// Changes to a response.
#[derive(Debug)]
pub(crate) struct ResponseEdit {
    headers: HeaderEdit,
    body: Replacer,
}

impl ResponseEdit {
    pub(super) fn of(spec: &RuleSpec) -> Result<Self, RuleProblem> {
        let set = spec.set_response_headers.iter();
        Ok(Self {
            headers: HeaderEdit::new(set, &spec.delete_response_headers, is_response_framing)?,
            body: replacer(spec)?,
        })
    }

    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        self.headers.apply(headers);
    }

    /// What is replaced in the body.
    pub(crate) fn replacer(&self) -> &Replacer {
        &self.body
    }
}

#[derive(Debug)]
struct HeaderEdit {
    set: Vec<(HeaderName, HeaderValue)>,
    delete: Vec<HeaderName>,
}

impl HeaderEdit {
    fn new<'a>(
        set: impl Iterator<Item = (&'a String, &'a String)>,
        delete: &[String],
        is_framing: fn(&HeaderName) -> bool,
    ) -> Result<Self, RuleProblem> {
        let name = |name: &str| {
            let parsed = HeaderName::from_bytes(name.as_bytes());
            let parsed = parsed.map_err(|_| RuleProblem::HeaderName(name.to_owned()))?;
            if is_framing(&parsed) { Err(RuleProblem::Framing(parsed.to_string())) } else { Ok(parsed) }
        };
        let set = set.map(|(key, value)| {
            let key = name(key)?;
            // What it is stays out of the message: people put credentials there.
            let value =
                HeaderValue::from_str(value).map_err(|_| RuleProblem::HeaderValue(key.to_string()))?;
            Ok((key, value))
        });
        Ok(Self {
            set: set.collect::<Result<_, RuleProblem>>()?,
            delete: delete.iter().map(|key| name(key)).collect::<Result<_, _>>()?,
        })
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.delete {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// Headers that belong to one connection and not to what is said on it (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Whether a request's header says where it goes, where it ends, or how the connection is used.
pub(crate) fn is_request_framing(name: &HeaderName) -> bool {
    const MORE: [HeaderName; 4] =
        [header::HOST, header::CONTENT_LENGTH, header::EXPECT, HeaderName::from_static("http2-settings")];
    HOP_BY_HOP.contains(name) || MORE.contains(name)
}

/// Whether a response's header says where it ends, what its bytes mean, or how the connection is used.
/// `Alt-Svc` points to where we cannot look.
pub(crate) fn is_response_framing(name: &HeaderName) -> bool {
    const MORE: [HeaderName; 3] = [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::ALT_SVC];
    HOP_BY_HOP.contains(name) || MORE.contains(name)
}

/// Whether this can stand in a request line as a path, without a query or fragment.
pub(crate) fn is_valid_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#')
}
