//! Names and addresses of hosts, as guests and users write them. A text is parsed once into one of these
//! types, and that value is matched and dialled: what two parsers could read differently is refused.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use thiserror::Error;

#[cfg(test)]
mod tests;

/// The longest name, bytes, without the root's dot (RFC 1035, 2.3.4, in its text form).
pub(crate) const MAX_NAME: usize = 253;

/// The longest label of a name, bytes (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// A DNS name: lower-case ASCII labels of letters, digits, `-` and `_`, without a trailing dot, and
/// nothing that any resolver takes for an address (`127.1`, `0x7f.1`).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    /// A name that a guest has sent. Internationalised names must have their ASCII form.
    ///
    /// # Errors
    ///
    /// [`InvalidHost`] says what is odd about it.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        check_name(text)?;
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// A name that the user has written, maybe with letters beyond ASCII (UTS 46).
    ///
    /// # Errors
    ///
    /// [`InvalidHost`] says what is odd about it.
    pub fn from_user(text: &str) -> Result<Self, InvalidHost> {
        Self::parse(&to_ascii(text)?)
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Whom a connection or request is for. Displayed without brackets; [`Authority`] has them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// By name.
    Name(HostName),
    /// By address. An IPv4 address inside an IPv6 one (`::ffff:a.b.c.d`) is taken out.
    Address(IpAddr),
}

impl Host {
    /// A name or address, without port and brackets, that a guest has sent.
    ///
    /// # Errors
    ///
    /// [`InvalidHost`] says what is odd about it.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self::from(address)),
            Err(_) => HostName::parse(text).map(Self::Name),
        }
    }

    /// The name, if it is one.
    #[must_use]
    pub fn name(&self) -> Option<&HostName> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }
}

impl From<HostName> for Host {
    fn from(name: HostName) -> Self {
        Self::Name(name)
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self::Address(address.to_canonical())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Host and maybe port: a `Host` header, an `:authority`, the authority of an absolute URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, if one is written; never 0.
    pub port: Option<u16>,
}

impl Authority {
    /// `name`, `name:port`, `a.b.c.d:port`, `[v6]`, `[v6]:port`, as a guest has sent it.
    ///
    /// # Errors
    ///
    /// [`InvalidHost`] says what is odd about it.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        if text.contains('@') {
            return Err(InvalidHost::UserInfo);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or(InvalidHost::Brackets)?;
                let address: Ipv6Addr = address.parse().map_err(|_| InvalidHost::Brackets)?;
                let port = match port {
                    "" => None,
                    _ => Some(port.strip_prefix(':').ok_or(InvalidHost::Brackets)?),
                };
                (Host::from(IpAddr::V6(address)), port)
            }
            None => {
                let (host, port) = match text.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (text, None),
                };
                (Host::parse(host)?, port)
            }
        };
        Ok(Self { host, port: port.map(parse_port).transpose()? })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            ref host => host.fmt(f)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// What is odd about a host. None of it is repeated: a guest's text may be long and strange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidHost {
    /// There is none.
    #[error("the host is empty")]
    Empty,
    /// `example.com.`, which some match and some do not.
    #[error("the host name ends with a dot")]
    TrailingDot,
    /// Longer than DNS can carry.
    #[error("the host name has more than {MAX_NAME} bytes")]
    TooLong,
    /// Two dots in a row or one in front, too long, or a hyphen at an end.
    #[error(
        "the host name has a label that is empty, longer than {MAX_LABEL} bytes, or begins or ends with a hyphen"
    )]
    Label,
    /// Not a letter, digit, hyphen, underscore or dot.
    #[error("the host name has the character {0:?}")]
    Character(char),
    /// Another way to write an IPv4 address, or no address at all.
    #[error("the host name ends with a number but is no IPv4 address of four decimal numbers")]
    Number,
    /// Not an internationalised name by UTS 46.
    #[error("the host name is no valid internationalised name")]
    International,
    /// `user@host`.
    #[error("the host has a user in front of it")]
    UserInfo,
    /// No IPv6 address in brackets, or something else behind them.
    #[error("the host has brackets that hold no IPv6 address, or something behind them that is no port")]
    Brackets,
    /// Not a decimal number between 1 and 65535.
    #[error("the port is no number between 1 and 65535")]
    Port,
}

/// A port in decimal digits, nothing else (`u16::from_str` takes a sign).
pub(crate) fn parse_port(text: &str) -> Result<u16, InvalidHost> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(InvalidHost::Port),
    }
}

/// A user's text with its letters beyond ASCII in their ASCII form; ASCII is left for [`check_name`] to judge.
pub(crate) fn to_ascii(text: &str) -> Result<String, InvalidHost> {
    if text.is_ascii() {
        return Ok(text.to_owned());
    }
    idna::domain_to_ascii(text).map_err(|_| InvalidHost::International)
}

/// Whether a text is a name, in any case.
fn check_name(text: &str) -> Result<(), InvalidHost> {
    if text.is_empty() {
        return Err(InvalidHost::Empty);
    }
    if text.len() > MAX_NAME + 1 {
        return Err(InvalidHost::TooLong);
    }
    if text.ends_with('.') {
        return Err(InvalidHost::TrailingDot);
    }
    if text.len() > MAX_NAME {
        return Err(InvalidHost::TooLong);
    }
    if let Some(odd) = text.chars().find(|&c| !(is_name_character(c) || c == '.')) {
        return Err(InvalidHost::Character(odd));
    }
    if !text.split('.').all(is_label) {
        return Err(InvalidHost::Label);
    }
    if ends_in_number(text) {
        return Err(InvalidHost::Number);
    }
    Ok(())
}

/// Whether a label may have it. Underscores are in names of services and in many people's hosts.
pub(crate) fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Whether a label has a length that DNS can carry and no hyphen at an end.
pub(crate) fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
}

/// Whether `inet_aton` or a URL parser would take it for an address: the last label is a decimal, octal
/// or hexadecimal number (WHATWG URL, "ends in a number checker").
pub(crate) fn ends_in_number(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or(text);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
