//! Whom a request is for, and what it asks of the connection: read once, and refused where two readers
//! could disagree.

use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::{Method, Version};

use super::Context;
use crate::denial::{Denial, Reason};
use crate::host::{Authority, Host};

/// The one host of a request: that of its target, of its `Host`, and of its TLS connection.
pub(super) fn host(parts: &Parts, context: &Context) -> Result<Host, Denial> {
    let known = context.https.as_ref().map_or_else(String::new, Host::to_string);
    let malformed = |rule: &str| Denial::new(Reason::MalformedRequest, &known, context.port).by(rule);
    let scheme = if context.https.is_some() { "https" } else { "http" };
    if parts.uri.scheme_str().is_some_and(|given| given != scheme) {
        return Err(malformed("the scheme of the target is not that of the connection"));
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let header = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(malformed("several Host headers")),
        (Some(value), None) => Some(value.to_str().map_err(|_| malformed("a Host that is no text"))?),
        (None, None) => None,
    };
    let parse = |text: &str| {
        let parsed = Authority::parse(text);
        parsed.map_err(|error| Denial::new(Reason::MalformedHost, text, context.port).by(error.to_string()))
    };
    let target = parts.uri.authority().map(|authority| parse(authority.as_str())).transpose()?;
    let header = header.map(parse).transpose()?;
    let authority = match (target, header) {
        (Some(target), Some(header)) => {
            let port = |authority: &Authority| authority.port.unwrap_or(context.port);
            if target.host != header.host || port(&target) != port(&header) {
                return Err(malformed("a target and a Host that differ"));
            }
            target
        }
        (Some(authority), None) | (None, Some(authority)) => authority,
        (None, None) => return Err(malformed("no Host")),
    };
    let differs = |rule: &str| {
        Denial::new(Reason::SniHostMismatch, &authority.host, authority.port.unwrap_or(context.port)).by(rule)
    };
    if context.https.as_ref().is_some_and(|server_name| *server_name != authority.host) {
        return Err(differs("the host is not that of the TLS connection"));
    }
    if authority.port.is_some_and(|port| port != context.port) {
        return Err(differs("the port is not that of the connection"));
    }
    Ok(authority.host)
}

/// What a request wants its connection to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upgrade {
    /// Nothing, or HTTP/2, which we need not offer.
    None,
    /// A WebSocket (RFC 6455, 4.1).
    WebSocket,
    /// Something else.
    Other,
}

pub(super) fn upgrade(parts: &Parts) -> Upgrade {
    let headers = &parts.headers;
    if parts.version >= Version::HTTP_2 || !headers.contains_key(header::UPGRADE) {
        return Upgrade::None;
    }
    let is_asked = tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let wanted: Vec<&str> = tokens(headers, &header::UPGRADE).collect();
    if !is_asked || wanted.iter().all(|protocol| protocol.eq_ignore_ascii_case("h2c")) {
        return Upgrade::None;
    }
    let one = |name| headers.get_all(name).iter().count() == 1;
    let is_web_socket = matches!(wanted[..], [protocol] if protocol.eq_ignore_ascii_case("websocket"))
        && parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && one(header::SEC_WEBSOCKET_KEY)
        && one(header::SEC_WEBSOCKET_VERSION)
        && !headers.contains_key(header::TRANSFER_ENCODING)
        && headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0");
    if is_web_socket { Upgrade::WebSocket } else { Upgrade::Other }
}

/// The elements of a list, over all headers of that name.
pub(crate) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|token| !token.is_empty())
}
