//! A request that may be sent. Values of secrets are in it, so nothing shows it.

use http::Request;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme, Uri};

use super::{Exchange, Head};
use crate::denial::{Denial, Reason};
use crate::host::Authority;
use crate::policy::{Permit, Policy};
use crate::secret::Masker;

/// A request that may be sent to its host, with values of secrets in it. Only the checks make one.
pub struct Cleared {
    parts: Parts,
    has_values: bool,
    sent: Sent,
}

/// What is remembered of a request that was sent, to decide on its response. No values are in it.
pub struct Sent {
    pub(crate) policy: Policy,
    pub(crate) permit: Permit,
    pub(crate) host: String,
    pub(crate) head: Head,
    pub(crate) upgrade: bool,
    pub(crate) masker: Option<Masker>,
}

impl Cleared {
    /// Where it may go.
    #[must_use]
    pub fn permit(&self) -> &Permit {
        &self.sent.permit
    }

    /// Whether it asks to become a WebSocket.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        self.sent.upgrade
    }

    /// Whether values of secrets were put in.
    #[must_use]
    pub fn has_values(&self) -> bool {
        self.has_values
    }

    /// The head to be sent, and what is needed for the response. The target is absolute, without a `Host`;
    /// what says where the body ends and how the connection is used is for whoever sends it.
    #[must_use]
    pub fn into_parts(self) -> (Parts, Sent) {
        (self.parts, self.sent)
    }
}

impl Exchange {
    /// Checks what rules have left, and puts in the values: nothing changes the request after that.
    pub(super) fn clear(self) -> Result<Cleared, Denial> {
        let masker = self.policy.secrets().masker(&self.permit);
        let reads_body = masker.is_some() || {
            let subject = self.head.subject(&self.permit);
            self.policy.rules().may_change_body(&subject)
        };
        let head = self.head.clone();
        let malformed = Denial::new(Reason::MalformedRequest, self.permit.host(), self.permit.port());
        let Head { method, path, mut query, mut headers } = self.head;
        for (name, value) in self.kept {
            headers.append(name, value);
        }
        if reads_body {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            // A value in two pieces of a body, asked for one by one, could not be recognised.
            headers.remove(header::RANGE);
            headers.remove(header::IF_RANGE);
        }
        if masker.is_some() {
            // Compressed frames could not be looked into.
            headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
        }
        let has_values =
            self.policy.secrets().substitute(&self.permit, self.https, &mut headers, &path, &mut query)?;
        let uri = uri(&self.permit, self.https, &path, query.as_deref()).ok_or(malformed)?;
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let (parts, ()) = request.into_parts();
        let Self { policy, permit, host, upgrade, .. } = self;
        Ok(Cleared { parts, has_values, sent: Sent { policy, permit, host, head, upgrade, masker } })
    }
}

fn uri(permit: &Permit, https: bool, path: &str, query: Option<&str>) -> Option<Uri> {
    let (scheme, default_port) = if https { (Scheme::HTTPS, 443) } else { (Scheme::HTTP, 80) };
    let port = Some(permit.port()).filter(|&port| port != default_port);
    let authority = Authority { host: permit.host().clone(), port };
    let target = match query {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority.to_string().parse().ok()?);
    parts.path_and_query = Some(target.ok()?);
    Uri::from_parts(parts).ok()
}
