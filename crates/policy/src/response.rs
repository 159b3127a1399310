//! The response to a request that was sent: values of secrets taken out of it again, rules and their
//! callbacks applied, and a plan for its body, which streams.

use std::sync::Arc;
use std::time::Duration;

use api::hook::{HookReply, HookRequest};
use api::network::Phase;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use http::{Method, StatusCode};

use crate::body::{Filter, Replacer, Whole};
use crate::denial::{Denial, Reason};
use crate::request::hook::{self, HookFailure};
use crate::request::{Sent, rule_name, tokens};
use crate::rule::{self, Callback, ResponseEdit, Rule};
use crate::secret::Masker;

/// The most encodings of one body, one over the other. Stops a server from making us decode for ever.
const MAX_CODINGS: usize = 3;

/// What becomes of a response.
pub enum ResponseVerdict {
    /// It goes to the guest, as the plan says.
    Forward(Box<ResponsePlan>),
    /// It is refused.
    Deny(Denial),
    /// The client must be asked.
    Ask(Box<ResponseQuestion>),
}

/// What the guest gets.
pub struct ResponsePlan {
    /// The head.
    pub parts: Parts,
    /// What happens to the body.
    pub body: BodyPlan,
    /// Hides values in the trailers.
    pub masker: Option<Masker>,
}

/// What happens to a body. Lengths and encodings are only left in the head where it stays as it is.
pub enum BodyPlan {
    /// There is none; what the head says of it is of another answer's.
    Empty,
    /// It stays as it is.
    AsIs,
    /// It is decoded, and changed as it streams by.
    Stream(Vec<Coding>, Box<Filter>),
    /// It is decoded, and changed as a whole.
    Whole(Vec<Coding>, Whole),
    /// This takes its place.
    Set(Vec<u8>),
}

/// An encoding of a body that we can take off (RFC 9110, 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`.
    Gzip,
    /// `deflate`, which is zlib's format.
    Deflate,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
}

impl Coding {
    fn of(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "br" => Some(Self::Brotli),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl Sent {
    /// Decides on the head of the response, not an informational one other than 101.
    #[must_use]
    pub fn response(self, mut parts: Parts) -> ResponseVerdict {
        if let Some(masker) = &self.masker {
            masker.headers(&mut parts.headers);
        }
        let is_web_socket = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        if is_web_socket
            && self.masker.is_some()
            && parts.headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS)
        {
            // Nobody asked for it, and we could not look into what follows.
            return ResponseVerdict::Deny(self.denial(Reason::UpgradeNotAllowed));
        }
        let framing = take_framing(&mut parts.headers);
        let response = Response {
            is_sse: is_event_stream(&parts.headers),
            sent: self,
            parts,
            framing,
            replacer: Replacer::default(),
            set_body: None,
            next: 0,
        };
        response.apply_rules()
    }

    fn denial(&self, reason: Reason) -> Denial {
        Denial::new(reason, self.permit.host(), self.permit.port())
    }
}

/// A response while rules are applied.
struct Response {
    sent: Sent,
    parts: Parts,
    /// What says where the body ends and what its bytes mean.
    framing: Vec<(HeaderName, HeaderValue)>,
    is_sse: bool,
    replacer: Replacer,
    set_body: Option<Vec<u8>>,
    /// The next rule.
    next: usize,
}

impl Response {
    fn apply_rules(mut self) -> ResponseVerdict {
        let rules = Arc::clone(self.sent.policy.rules().after());
        while let Some(rule) = rules.get(self.next) {
            self.next += 1;
            if !rule.filter.matches(&self.sent.head.subject(&self.sent.permit)) {
                continue;
            }
            if rule.block {
                return ResponseVerdict::Deny(self.sent.denial(Reason::RuleBlock).by(rule_name(rule)));
            }
            rule.edit.apply(&mut self.parts.headers);
            self.replacer.extend(rule.edit.replacer());
            if let Some(callback) = &rule.callback {
                return ResponseVerdict::Ask(Box::new(self.question(rule, callback)));
            }
        }
        self.plan()
    }

    fn question(self, rule: &Rule<ResponseEdit>, callback: &Callback) -> ResponseQuestion {
        let head = &self.sent.head;
        let request = HookRequest {
            callback_id: callback.id.clone(),
            phase: Phase::After,
            host: self.sent.host.clone(),
            method: head.method.to_string(),
            path: head.path.clone(),
            query: hook::shown_query(head.query.as_deref()),
            request_headers: hook::shown_headers(&head.headers),
            status_code: self.parts.status.as_u16(),
            response_headers: hook::shown_headers(&self.parts.headers),
            is_sse: self.is_sse,
        };
        ResponseQuestion { request, timeout: callback.timeout, rule: rule_name(rule), response: self }
    }

    /// Does what a client has answered.
    fn follow(&mut self, reply: HookReply) -> Result<(), HookFailure> {
        if reply.request.is_some() {
            return Err(HookFailure::Nonsense("a change to a request that was already sent"));
        }
        let Some(change) = reply.response else { return Ok(()) };
        if let Some(headers) = &change.headers {
            self.parts.headers = hook::read_headers(headers, rule::is_response_framing, &self.sent.host)?;
        }
        if let Some(body) = &change.set_body_base64 {
            let body =
                STANDARD.decode(body).map_err(|_| HookFailure::Nonsense("a body that is not base64"))?;
            self.set_body = Some(body);
            // Earlier replacements were for the body that is gone.
            self.replacer = Replacer::default();
        }
        let replacements = change.body_replacements.unwrap_or_default();
        let replacer =
            Replacer::new(&replacements).map_err(|_| HookFailure::Nonsense("a replacement of nothing"))?;
        self.replacer.extend(&replacer);
        Ok(())
    }

    fn plan(mut self) -> ResponseVerdict {
        if let Some(masker) = &self.sent.masker {
            // Rules can put pieces of a value together, too.
            masker.headers(&mut self.parts.headers);
        }
        self.parts.headers.remove(header::ALT_SVC);
        let body = match self.body() {
            Ok(body) => body,
            Err(reason) => return ResponseVerdict::Deny(self.sent.denial(reason)),
        };
        for (name, value) in std::mem::take(&mut self.framing) {
            // Trailers stay even where the body does not.
            if matches!(body, BodyPlan::AsIs | BodyPlan::Empty) || name == header::TRAILER {
                self.parts.headers.append(name, value);
            }
        }
        let Self { parts, sent, .. } = self;
        ResponseVerdict::Forward(Box::new(ResponsePlan { parts, body, masker: sent.masker }))
    }

    fn body(&mut self) -> Result<BodyPlan, Reason> {
        let status = self.parts.status;
        let is_empty = self.sent.head.method == Method::HEAD
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        let replacer = std::mem::take(&mut self.replacer);
        let masker = self.sent.masker.as_ref();
        if is_empty {
            return Ok(BodyPlan::Empty);
        }
        if let Some(body) = self.set_body.take() {
            let body =
                Whole::new(replacer, masker.cloned()).change(body).map_err(|_| Reason::BodyTooLarge)?;
            return Ok(BodyPlan::Set(body));
        }
        if replacer.is_empty() && masker.is_none() {
            return Ok(BodyPlan::AsIs);
        }
        let codings = codings(&self.framing).ok_or(Reason::EncodingUnknown)?;
        if replacer.is_empty() || self.is_sse {
            return Ok(BodyPlan::Stream(codings, Box::new(Filter::new(replacer, masker))));
        }
        Ok(BodyPlan::Whole(codings, Whole::new(replacer, masker.cloned())))
    }
}

/// A question to the client about a response, and the response that waits for the answer.
pub struct ResponseQuestion {
    request: HookRequest,
    timeout: Duration,
    rule: String,
    response: Response,
}

impl ResponseQuestion {
    /// What is asked.
    #[must_use]
    pub fn request(&self) -> &HookRequest {
        &self.request
    }

    /// How long the client may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Goes on with the answer. Without one the response is refused.
    #[must_use]
    pub fn answer(self, reply: Result<HookReply, HookFailure>) -> ResponseVerdict {
        let Self { rule, mut response, .. } = self;
        match hook::obey(reply, rule, |reply| response.follow(reply)) {
            Ok(()) => response.apply_rules(),
            Err((reason, by)) => ResponseVerdict::Deny(response.sent.denial(reason).by(by)),
        }
    }
}

/// Takes out what belongs to one connection, and gives back what says how the body is to be read.
fn take_framing(headers: &mut HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let nominated: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .filter(|name| !KEPT.contains(name))
        .collect();
    let mut kept = Vec::new();
    for name in KEPT {
        kept.extend(headers.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
    }
    let framing: Vec<HeaderName> =
        headers.keys().filter(|name| rule::is_response_framing(name)).cloned().chain(nominated).collect();
    for name in framing {
        headers.remove(name);
    }
    kept
}

const KEPT: [HeaderName; 3] = [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::TRAILER];

fn is_event_stream(headers: &HeaderMap) -> bool {
    let is = |value: &HeaderValue| {
        let essence = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    };
    headers.get(header::CONTENT_TYPE).is_some_and(is)
}

/// The encodings of a body, in the order in which they are taken off; `None` if one is unknown.
fn codings(framing: &[(HeaderName, HeaderValue)]) -> Option<Vec<Coding>> {
    let mut codings = Vec::new();
    for (_, value) in framing.iter().filter(|(name, _)| name == header::CONTENT_ENCODING) {
        let names = value.to_str().ok()?.split(',').map(str::trim);
        for name in names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity")) {
            codings.push(Coding::of(name)?);
        }
    }
    codings.reverse();
    (codings.len() <= MAX_CODINGS).then_some(codings)
}

#[cfg(test)]
mod tests;
