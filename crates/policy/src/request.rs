//! One request of a guest: whom it is for, whether it may be made, and what is sent in its place.
//!
//! The order is what makes it safe. The authority is parsed once, compared with the name in TLS, and
//! permitted; then rules and their callbacks see and change the request, with placeholders in it; values of
//! secrets are put in last, into what is then sent and shown to nobody. Only that can make a [`Cleared`].

mod cleared;
pub(crate) mod hook;
pub(crate) mod query;
mod target;

use std::sync::Arc;
use std::time::Duration;

use api::hook::{HookReply, HookRequest};
use api::network::Phase;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method};

use crate::denial::{Denial, Reason};
use crate::host::Host;
use crate::policy::{Permit, Policy};
use crate::rule::{self, Callback, RequestEdit, Rule, Subject};

pub use cleared::{Cleared, Sent};
pub use hook::HookFailure;
pub(crate) use target::tokens;

/// What is known of a request before its head is read.
#[derive(Debug, Clone)]
pub struct Context {
    /// The name in the ClientHello of the connection; `None` for plain HTTP.
    pub https: Option<Host>,
    /// The port to which the guest connected.
    pub port: u16,
}

/// What becomes of a request.
pub enum Verdict {
    /// It may be sent, as it is in there.
    Forward(Box<Cleared>),
    /// It is refused.
    Deny(Denial),
    /// The client must be asked.
    Ask(Box<Question>),
}

/// What rules look at and change of a request. Placeholders are in it, never values. Neither the host nor
/// anything that says where the request ends is.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
}

/// A request that is permitted for its host, while rules are applied.
pub struct Exchange {
    policy: Policy,
    permit: Permit,
    https: bool,
    /// The host as text.
    host: String,
    head: Head,
    /// It asks to become a WebSocket.
    upgrade: bool,
    /// Headers of one connection that are still sent: trailers cannot be announced otherwise.
    kept: Vec<(HeaderName, HeaderValue)>,
    /// The next rule.
    next: usize,
}

impl Exchange {
    /// Decides on the head of a request.
    #[must_use]
    pub fn begin(policy: &Policy, parts: Parts, context: &Context) -> Verdict {
        match Self::permitted(policy, parts, context) {
            Ok(exchange) => exchange.apply_rules(),
            Err(denial) => Verdict::Deny(denial),
        }
    }

    fn permitted(policy: &Policy, mut parts: Parts, context: &Context) -> Result<Self, Denial> {
        let host = target::host(&parts, context)?;
        let denial = |reason| Denial::new(reason, &host, context.port);
        if parts.method == Method::CONNECT {
            return Err(denial(Reason::ConnectMethod));
        }
        let permit = policy.host(&host, context.port)?;
        // HTTP/2 lets a guest say anything; `*` is for OPTIONS only (RFC 9110, 7.1).
        let path = parts.uri.path();
        let is_path = path.starts_with('/') || (path == "*" && parts.method == Method::OPTIONS);
        if !is_path {
            return Err(denial(Reason::MalformedRequest).by("a target that is no path"));
        }
        let upgrade = match target::upgrade(&parts) {
            target::Upgrade::WebSocket => true,
            target::Upgrade::None => false,
            target::Upgrade::Other => return Err(denial(Reason::UpgradeNotAllowed)),
        };
        let kept = take_connection_headers(&mut parts.headers);
        let head = Head {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            headers: parts.headers,
        };
        let https = context.https.is_some();
        let policy = policy.clone();
        Ok(Self { policy, permit, https, host: host.to_string(), head, upgrade, kept, next: 0 })
    }

    fn apply_rules(mut self) -> Verdict {
        let rules = Arc::clone(self.policy.rules().before());
        while let Some(rule) = rules.get(self.next) {
            self.next += 1;
            if !rule.filter.matches(&self.head.subject(&self.permit)) {
                continue;
            }
            if rule.block {
                return Verdict::Deny(self.denial(Reason::RuleBlock).by(rule_name(rule)));
            }
            rule.edit.apply(&mut self.head);
            if let Some(callback) = &rule.callback {
                return Verdict::Ask(Box::new(self.question(rule, callback)));
            }
        }
        match self.clear() {
            Ok(cleared) => Verdict::Forward(Box::new(cleared)),
            Err(denial) => Verdict::Deny(denial),
        }
    }

    fn question(self, rule: &Rule<RequestEdit>, callback: &Callback) -> Question {
        let request = HookRequest {
            callback_id: callback.id.clone(),
            phase: Phase::Before,
            host: self.host.clone(),
            method: self.head.method.to_string(),
            path: self.head.path.clone(),
            query: hook::shown_query(self.head.query.as_deref()),
            request_headers: hook::shown_headers(&self.head.headers),
            status_code: 0,
            response_headers: hook::shown_headers(&HeaderMap::new()),
            is_sse: false,
        };
        Question { request, timeout: callback.timeout, rule: rule_name(rule), exchange: self }
    }

    /// Does what a client has answered.
    fn follow(&mut self, reply: HookReply) -> Result<(), HookFailure> {
        if reply.response.is_some() {
            return Err(HookFailure::Nonsense("a change to a response that is not there yet"));
        }
        let Some(change) = reply.request else { return Ok(()) };
        if let Some(headers) = &change.headers {
            self.head.headers = hook::read_headers(headers, rule::is_request_framing, &self.host)?;
        }
        if let Some(parameters) = &change.query {
            self.head.query = hook::read_query(parameters);
        }
        if let Some(path) = change.path.filter(|path| !path.is_empty()) {
            if !rule::is_valid_path(&path) {
                return Err(HookFailure::Nonsense("what is no path"));
            }
            self.head.path = path;
        }
        Ok(())
    }

    fn denial(&self, reason: Reason) -> Denial {
        Denial::new(reason, self.permit.host(), self.permit.port())
    }
}

impl Head {
    pub(crate) fn subject<'a>(&'a self, permit: &'a Permit) -> Subject<'a> {
        Subject { host: permit.host(), port: permit.port(), method: &self.method, path: &self.path }
    }
}

/// A question to the client about a request, and the request that waits for the answer.
pub struct Question {
    request: HookRequest,
    timeout: Duration,
    rule: String,
    exchange: Exchange,
}

impl Question {
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

    /// Goes on with the answer. Without one the request is refused.
    #[must_use]
    pub fn answer(self, reply: Result<HookReply, HookFailure>) -> Verdict {
        let Self { rule, mut exchange, .. } = self;
        match hook::obey(reply, rule, |reply| exchange.follow(reply)) {
            Ok(()) => exchange.apply_rules(),
            Err((reason, by)) => Verdict::Deny(exchange.denial(reason).by(by)),
        }
    }
}

/// What explanations call a rule.
pub(crate) fn rule_name<E>(rule: &Rule<E>) -> String {
    format!("rule {}", rule.name)
}

/// Takes out whatever belongs to one connection or says where the message ends, and gives back what is
/// needed on the next connection, too.
fn take_connection_headers(headers: &mut HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let nominated: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .collect();
    let takes_trailers = tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    let mut kept: Vec<_> =
        headers.get_all(header::TRAILER).iter().map(|names| (header::TRAILER, names.clone())).collect();
    if takes_trailers {
        kept.push((header::TE, HeaderValue::from_static("trailers")));
    }
    let framing = headers.keys().filter(|name| rule::is_request_framing(name)).cloned();
    let taken: Vec<HeaderName> = framing.chain(nominated).collect();
    for name in taken {
        headers.remove(name);
    }
    kept
}

#[cfg(test)]
pub(crate) mod tests;
