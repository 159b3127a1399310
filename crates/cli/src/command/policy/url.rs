//! An URL to be decided about, as it is typed.

use std::fmt;
use std::str::FromStr;

use http::{Request, request::Parts};
use policy::{Authority, Host};

use crate::failure::Failure;

/// `https://HOST[:PORT][/PATH][?QUERY]`, the same with `http`, or `tcp://HOST:PORT`.
#[derive(Debug, Clone)]
pub(super) struct Url {
    /// Whether it is HTTP with or without TLS; `None` for neither.
    pub(super) https: Option<bool>,
    pub(super) host: Host,
    pub(super) port: u16,
    /// With the query.
    path: String,
    text: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
        let (https, usual) = match scheme {
            "https" | "wss" => (Some(true), Some(443)),
            "http" | "ws" => (Some(false), Some(80)),
            "tcp" => (None, None),
            _ => return Err(format!("{scheme:?} is not https, http or tcp")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let Authority { host, port } = Authority::parse(authority).map_err(|error| error.to_string())?;
        let port = port.or(usual).ok_or("tcp:// needs a port")?;
        let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        Ok(Self { https, host, port, path, text })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Url {
    /// The head of a request for it.
    pub(super) fn request(&self, method: &str, headers: &[String]) -> Result<Parts, Failure> {
        let authority = Authority { host: self.host.clone(), port: Some(self.port) };
        let mut request =
            Request::builder().method(method).uri(&self.path).header("host", authority.to_string());
        for header in headers {
            let wrong = || Failure::usage(format!("--header {header:?} is not NAME: VALUE"));
            let (name, value) = header.split_once(':').ok_or_else(wrong)?;
            request = request.header(name.trim(), value.trim());
        }
        let wrong = |error| Failure::usage(format!("this is no request: {error}"));
        Ok(request.body(()).map_err(wrong)?.into_parts().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_schemes_and_odd_hosts_are_refused() {
        let url = |text: &str| text.parse::<Url>();
        assert_eq!(url("example.com").unwrap().port, 443);
        assert_eq!(url("http://example.com?q=1").unwrap().path, "/?q=1");
        assert_eq!(url("https://[2001:db8::1]:8443/a#b").unwrap().path, "/a");
        for wrong in [
            "tcp://example.com",
            "ftp://example.com",
            "https://",
            "https://user@example.com",
            "https://127.1",
        ] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }
}
