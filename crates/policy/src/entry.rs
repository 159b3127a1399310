//! Entries of an allow-list, as the user writes them: names with globs, addresses, blocks, each maybe with a
//! port. An entry without a port is for all.
//!
//! A label that is only `*` stands for one label or more, anything at all if it is alone; a `*` beside
//! other characters stands for any characters of that label, and never for a dot: `api-*.example.com` is
//! not `api-.attacker.example.com`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use thiserror::Error;

use api::{Explain, Kind};

use crate::address::Range;
use crate::host::{self, Host, HostName, InvalidHost};

#[cfg(test)]
mod tests;

/// The longest entry, bytes: a name of the longest length, each letter beyond ASCII, and a port. Stops
/// a list of a client's from filling our memory.
const MAX_ENTRY: usize = 1024;

/// What an allow-list allows with one line. Displayed as it can be parsed again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Hosts by name.
    Glob {
        /// Which names.
        pattern: Pattern,
        /// On this port only.
        port: Option<u16>,
    },
    /// One address.
    Address {
        /// The address; never an IPv4 one inside an IPv6 one.
        ip: IpAddr,
        /// On this port only.
        port: Option<u16>,
    },
    /// A block of addresses.
    Block {
        /// The block, without bits beyond its prefix.
        net: IpNet,
        /// On this port only.
        port: Option<u16>,
    },
}

impl Entry {
    /// The port it is for, if it is for one only.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Glob { port, .. } | Self::Address { port, .. } | Self::Block { port, .. } => *port,
        }
    }

    /// Whether it is `*`: every host on every port.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::Glob { pattern, port: None } if pattern.is_everything())
    }

    /// Whether it is `*`, on all ports or one.
    pub(crate) fn is_for_every_host(&self) -> bool {
        matches!(self, Self::Glob { pattern, .. } if pattern.is_everything())
    }

    /// Whether it plainly allows all that another does that has one name.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match other {
            Self::Glob { pattern, port } => {
                let name = HostName::parse(pattern.as_str());
                name.is_ok_and(|name| self.knows(&name)) && (self.port().is_none() || self.port() == *port)
            }
            Self::Address { .. } | Self::Block { .. } => false,
        }
    }

    /// Whether it allows a host. `*` allows addresses too; that they must be public is not said here.
    #[must_use]
    pub fn allows(&self, host: &Host, port: u16) -> bool {
        match host {
            Host::Name(name) => self.allows_name(name, port),
            Host::Address(address) => self.allows_address(*address, port),
        }
    }

    /// Whether it allows a name on a port.
    #[must_use]
    pub fn allows_name(&self, name: &HostName, port: u16) -> bool {
        self.is_for(port) && self.knows(name)
    }

    /// Whether it allows a name on some port.
    #[must_use]
    pub fn knows(&self, name: &HostName) -> bool {
        matches!(self, Self::Glob { pattern, .. } if pattern.matches(name))
    }

    /// Whether it allows an address, if that is public.
    #[must_use]
    pub fn allows_address(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        self.is_for(port)
            && match self {
                Self::Glob { pattern, .. } => pattern.is_everything(),
                Self::Address { ip, .. } => *ip == address,
                Self::Block { net, .. } => net.contains(&address),
            }
    }

    /// Whether it names an address so that even a private one is meant: literally, or by a block that is
    /// private for the same reason as a whole. `0.0.0.0/0` means the internet, not the user's own network.
    /// Without a port: on any.
    pub(crate) fn means(&self, address: IpAddr, range: &Range, port: Option<u16>) -> bool {
        port.is_none_or(|port| self.is_for(port))
            && match self {
                Self::Glob { .. } => false,
                Self::Address { ip, .. } => *ip == address,
                Self::Block { net, .. } => net.contains(&address) && range.block.contains(net),
            }
    }

    fn is_for(&self, port: u16) -> bool {
        self.port().is_none_or(|only| only == port)
    }
}

impl FromStr for Entry {
    type Err = InvalidEntry;

    fn from_str(text: &str) -> Result<Self, InvalidEntry> {
        parse(text.trim()).map_err(|reason| {
            let text = text.trim().chars().take(MAX_ENTRY).collect();
            InvalidEntry { text, reason }
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.port()) {
            (Self::Glob { pattern, .. }, _) => write!(f, "{pattern}")?,
            (Self::Address { ip: IpAddr::V6(ip), .. }, Some(_)) => write!(f, "[{ip}]")?,
            (Self::Address { ip, .. }, _) => write!(f, "{ip}")?,
            (Self::Block { net: net @ IpNet::V6(_), .. }, Some(_)) => write!(f, "[{net}]")?,
            (Self::Block { net, .. }, _) => write!(f, "{net}")?,
        }
        self.port().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Names with `*` in them, in lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Names that the user has written, `*` for what may differ.
    ///
    /// # Errors
    ///
    /// [`EntryReason`] says what is odd about it.
    pub fn parse(text: &str) -> Result<Self, EntryReason> {
        if !text.contains('*') {
            return Ok(Self(HostName::from_user(text)?.as_str().into()));
        }
        let labels: Result<Vec<String>, InvalidHost> = text.split('.').map(label_to_ascii).collect();
        let text = labels?.join(".").to_ascii_lowercase();
        if text != "*" && !text.bytes().any(|byte| byte.is_ascii_alphabetic()) {
            return Err(EntryReason::NumberGlob);
        }
        if let Some(odd) = text.chars().find(|&c| !(host::is_name_character(c) || c == '.' || c == '*')) {
            return Err(InvalidHost::Character(odd).into());
        }
        if text.ends_with('.') {
            return Err(InvalidHost::TrailingDot.into());
        }
        if text.len() > host::MAX_NAME {
            return Err(InvalidHost::TooLong.into());
        }
        if !text.split('.').all(host::is_label) {
            return Err(InvalidHost::Label.into());
        }
        Ok(Self(text.into()))
    }

    /// Whether it is `*`.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        &*self.0 == "*"
    }

    /// Whether a name is among them.
    #[must_use]
    pub fn matches(&self, name: &HostName) -> bool {
        if !self.0.contains('*') {
            return *self.0 == *name.as_str();
        }
        matches(self.0.as_bytes(), name.as_str().as_bytes())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A label in its ASCII form, which a label with `*` does not have unless it is ASCII already.
fn label_to_ascii(label: &str) -> Result<String, InvalidHost> {
    match label.chars().find(|c| !c.is_ascii()) {
        Some(odd) if label.contains('*') => Err(InvalidHost::Character(odd)),
        _ => host::to_ascii(label),
    }
}

/// Why a text is not an entry of an allow-list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not a host that can be allowed")]
pub struct InvalidEntry {
    text: String,
    #[source]
    reason: EntryReason,
}

/// The rule that an entry breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EntryReason {
    /// It is no name, address or port.
    #[error(transparent)]
    Host(#[from] InvalidHost),
    /// It has a scheme or a path.
    #[error("it is a URL")]
    Url,
    /// `10.0.*`: names do not look so, and addresses have no `*`.
    #[error("`*` stands for parts of names, not of addresses")]
    NumberGlob,
    /// Neither `a.b.c.d/n` nor `v6/n`.
    #[error("what has a slash must be a block of addresses")]
    Block,
    /// Far longer than a name.
    #[error("it has more than {MAX_ENTRY} bytes")]
    TooLong,
}

impl Explain for InvalidEntry {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn hint(&self) -> Option<String> {
        let hint = match self.reason {
            EntryReason::Url => "write the host alone, without https:// and path",
            EntryReason::NumberGlob | EntryReason::Block => {
                "write a block as 10.1.0.0/16, 10.1.0.0/16:5432 or [fd00::/8]:5432"
            }
            EntryReason::Host(_) | EntryReason::TooLong => {
                "hosts are written as example.com, *.example.com, example.com:5432, 10.0.0.7 or 10.1.0.0/16"
            }
        };
        Some(hint.to_owned())
    }
}

fn parse(text: &str) -> Result<Entry, EntryReason> {
    if text.len() > MAX_ENTRY {
        return Err(EntryReason::TooLong);
    }
    if text.contains("://") {
        return Err(EntryReason::Url);
    }
    if text.contains('@') {
        return Err(InvalidHost::UserInfo.into());
    }
    let (place, port) = split_port(text)?;
    if place.contains('/') {
        return Ok(Entry::Block { net: parse_block(place)?, port });
    }
    match place.parse::<IpAddr>() {
        Ok(ip) => Ok(Entry::Address { ip: ip.to_canonical(), port }),
        Err(_) => Ok(Entry::Glob { pattern: Pattern::parse(place)?, port }),
    }
}

/// What is in front of the port, without brackets, and the port. A bare IPv6 address has none.
fn split_port(text: &str) -> Result<(&str, Option<u16>), InvalidHost> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, behind) = rest.split_once(']').ok_or(InvalidHost::Brackets)?;
        if !inside.contains(':') {
            return Err(InvalidHost::Brackets);
        }
        // `[fd00::]/8` is as good as `[fd00::/8]`, but only one of them is written back.
        return match behind {
            "" => Ok((inside, None)),
            _ => {
                Ok((inside, Some(host::parse_port(behind.strip_prefix(':').ok_or(InvalidHost::Brackets)?)?)))
            }
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((place, port)) => Ok((place, Some(host::parse_port(port)?))),
        None => Ok((text, None)),
    }
}

/// A block without bits beyond its prefix; one of IPv4 addresses inside IPv6 ones becomes IPv4's.
fn parse_block(text: &str) -> Result<IpNet, EntryReason> {
    let net: IpNet = text.parse().map_err(|_| EntryReason::Block)?;
    let net = net.trunc();
    match net.addr().to_canonical() {
        v4 @ IpAddr::V4(_) if net.prefix_len() >= 96 && net.max_prefix_len() == 128 => {
            IpNet::new(v4, net.prefix_len() - 96).map_err(|_| EntryReason::Block)
        }
        _ => Ok(net),
    }
}

/// Whether a name fits a pattern, in time of the product of their lengths whatever the pattern: `fits[j]`
/// says whether what was read of the pattern fits the first `j` bytes of the name.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut fits = vec![false; name.len() + 1];
    fits[0] = true;
    for (i, &expected) in pattern.iter().enumerate() {
        let begins = i == 0 || pattern[i - 1] == b'.';
        let ends = pattern.get(i + 1).is_none_or(|&next| next == b'.');
        match (expected, begins && ends) {
            // One byte or more, dots too; the dots around it make whole labels of them.
            (b'*', true) => {
                let first = fits.iter().position(|&fit| fit).unwrap_or(name.len());
                for (j, fit) in fits.iter_mut().enumerate() {
                    *fit = j > first;
                }
            }
            (b'*', false) => {
                for j in 0..name.len() {
                    fits[j + 1] |= fits[j] && name[j] != b'.';
                }
            }
            _ => {
                for j in (0..name.len()).rev() {
                    fits[j + 1] = fits[j] && name[j] == expected;
                }
                fits[0] = false;
            }
        }
    }
    fits[name.len()]
}
