//! Why something was refused, for programs, for the user and for the guest. A guest hears only what it
//! knew before: the host that it asked for, not what our lists and rules say of others.

use std::fmt;
use std::net::IpAddr;

use serde_json::json;

#[cfg(test)]
mod tests;

/// The longest part of a guest's text that is repeated, characters. Stops a guest from filling the log.
const MAX_SHOWN: usize = 256;

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No entry allows this host on this port.
    HostNotAllowed,
    /// No entry allows this address, and no allowed name was resolved to it.
    AddressNotResolved,
    /// The address is not public, and nothing names it.
    PrivateAddress {
        /// The address.
        address: IpAddr,
        /// Why it counts as private.
        why: &'static str,
    },
    /// It cannot be answered for this name: not a host's name, or a type of record that tunnels.
    DnsName,
    /// A TLS connection without a server name.
    SniMissing,
    /// A TLS connection with an address, or what is no name, for a server name.
    SniInvalid,
    /// The request names another host than its TLS connection.
    SniHostMismatch,
    /// The TLS connection hides its server name.
    EncryptedHello,
    /// A TLS connection to an allowed address whose ClientHello cannot be understood.
    MalformedHello,
    /// A secret's placeholder in a request over plain HTTP.
    PlainHttpSecret {
        /// The secret's name.
        secret: String,
    },
    /// A secret's placeholder in a request to a host that is not its own.
    SecretWrongHost {
        /// The secret's name.
        secret: String,
    },
    /// With the secrets' values in it, the request's head would be too large.
    SecretTooLarge,
    /// A secret's value came back where it cannot be replaced.
    SecretReflected,
    /// A rule says so.
    RuleBlock,
    /// The client that a rule asks did not answer, or not in a way that can be followed.
    HookFailed,
    /// The request breaks the rules of HTTP.
    MalformedRequest,
    /// The host is written in an odd way.
    MalformedHost,
    /// The guest asks for a proxy.
    ConnectMethod,
    /// An upgrade to something that cannot be looked into.
    UpgradeNotAllowed,
    /// Neither TLS nor HTTP, where only these may pass.
    UnknownProtocol,
    /// A datagram in a sandbox that has only TCP.
    Udp,
    /// A rule is for the body, and its encoding is unknown.
    EncodingUnknown,
    /// A rule is for the body, and it is too large to be changed.
    BodyTooLarge,
}

impl Reason {
    /// Its name for programs. It never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::HostNotAllowed => "host_not_allowed",
            Self::AddressNotResolved => "address_not_resolved",
            Self::PrivateAddress { .. } => "private_address",
            Self::DnsName => "dns_name",
            Self::SniMissing => "sni_missing",
            Self::SniInvalid => "sni_invalid",
            Self::SniHostMismatch => "sni_host_mismatch",
            Self::EncryptedHello => "ech",
            Self::MalformedHello => "malformed_hello",
            Self::PlainHttpSecret { .. } => "plain_http_secret",
            Self::SecretWrongHost { .. } => "secret_wrong_host",
            Self::SecretTooLarge => "secret_too_large",
            Self::SecretReflected => "secret_reflected",
            Self::RuleBlock => "rule_block",
            Self::HookFailed => "hook_failed",
            Self::MalformedRequest => "malformed_request",
            Self::MalformedHost => "malformed_host",
            Self::ConnectMethod => "connect_method",
            Self::UpgradeNotAllowed => "upgrade_not_allowed",
            Self::UnknownProtocol => "unknown_protocol",
            Self::Udp => "udp",
            Self::EncodingUnknown => "encoding_unknown",
            Self::BodyTooLarge => "body_too_large",
        }
    }
}

/// A refusal: why, of what, and what decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// The host that was asked for, as the guest wrote it, or an address.
    pub host: String,
    /// Its port; 0 if there is none.
    pub port: u16,
    /// The entry, rule or built-in that decided, for the user.
    pub rule: Option<String>,
}

impl Denial {
    /// A refusal for `reason`; [`Denial::by`] adds what decided.
    #[must_use]
    pub fn new(reason: Reason, host: impl fmt::Display, port: u16) -> Self {
        Self { reason, host: shown(&host.to_string()), port, rule: None }
    }

    /// The same, decided by an entry, a rule or a built-in.
    #[must_use]
    pub fn by(self, rule: impl Into<String>) -> Self {
        Self { rule: Some(rule.into()), ..self }
    }

    /// What was refused and why, for the user.
    #[must_use]
    pub fn message(&self) -> String {
        let host = &self.host;
        match &self.reason {
            Reason::HostNotAllowed => match self.port {
                0 | 80 | 443 => format!("{host} is not allowed"),
                port => format!("{host} is not allowed on port {port}"),
            },
            Reason::AddressNotResolved => {
                format!("{host} is not allowed, and no allowed name was resolved to it")
            }
            Reason::PrivateAddress { address, why } if *host == address.to_string() => {
                format!("{host} is not a public address ({why})")
            }
            Reason::PrivateAddress { address, why } => {
                format!("{host} has the address {address}, which is not public ({why})")
            }
            Reason::DnsName => format!("a look-up of {host} that is not one of an address"),
            Reason::SniMissing => format!("TLS to {host} without a server name"),
            Reason::SniInvalid => format!("TLS to {host} with a server name that is no host name"),
            Reason::SniHostMismatch => {
                format!("a request for {host} on a connection that was made for another host")
            }
            Reason::EncryptedHello => format!("TLS to {host} with a hidden server name"),
            Reason::MalformedHello => format!("TLS to {host} that begins in an odd way"),
            Reason::PlainHttpSecret { secret } => {
                format!("the secret {secret} was asked for over plain HTTP to {host}")
            }
            Reason::SecretWrongHost { secret } => format!("the secret {secret} is not for {host}"),
            Reason::SecretTooLarge => format!("a request to {host} uses secrets too many times"),
            Reason::SecretReflected => format!("{host} sent a secret where it cannot be hidden"),
            Reason::RuleBlock => format!("a rule blocks this request to {host}"),
            Reason::HookFailed => format!("nobody could decide on this request to {host}"),
            Reason::MalformedRequest => format!("a request to {host} breaks the rules of HTTP"),
            Reason::MalformedHost => format!("{host:?} is no plain host name"),
            Reason::ConnectMethod => format!("a request to {host} to be a proxy"),
            Reason::UpgradeNotAllowed => format!("a request to {host} to change the protocol"),
            Reason::UnknownProtocol => format!("neither TLS nor HTTP to {host}, port {}", self.port),
            Reason::Udp => format!("UDP to {host}, port {}", self.port),
            Reason::EncodingUnknown => format!("a body of {host} in an encoding that is unknown"),
            Reason::BodyTooLarge => {
                format!("a body of {host} that is too large for the rule that changes it")
            }
        }
    }

    /// The entry that would let it through, if one would.
    #[must_use]
    pub fn entry(&self) -> Option<String> {
        let bracketed = |port: u16| match self.host.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
            _ => format!("{}:{port}", self.host),
        };
        match self.reason {
            Reason::HostNotAllowed | Reason::AddressNotResolved => match self.port {
                0 | 80 | 443 => Some(self.host.clone()),
                port => Some(bracketed(port)),
            },
            Reason::UnknownProtocol if self.port != 0 => Some(bracketed(self.port)),
            Reason::PrivateAddress { address, .. } => Some(address.to_string()),
            _ => None,
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match &self.reason {
            Reason::PlainHttpSecret { secret } => Some(format!(
                "use https, or give the host of {secret} as http://{} if that is meant",
                self.host
            )),
            Reason::SecretWrongHost { secret } => {
                Some(format!("add {} to the hosts of {secret} if it is to have the secret", self.host))
            }
            Reason::EncryptedHello => Some("turn off encrypted ClientHello in the client".to_owned()),
            Reason::Udp => Some("use TCP: with a policy there is no other UDP than DNS".to_owned()),
            Reason::ConnectMethod => Some("use no proxy: connect to the host itself".to_owned()),
            _ => self.entry().map(|entry| format!("allow it with --allow-host {entry}")),
        }
    }

    /// The body of the answer to the guest, JSON.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        // The guest may not know which address its name has.
        let hint = match self.reason {
            Reason::PrivateAddress { .. } => {
                Some("addresses that are not public must be allowed one by one".to_owned())
            }
            _ => self.hint(),
        };
        let mut body = json!({ "blocked_by": "matchlock", "reason": self.reason.code(), "host": self.host });
        if let Some(hint) = hint {
            body["hint"] = hint.into();
        }
        let mut body = body.to_string().into_bytes();
        body.push(b'\n');
        body
    }
}

/// Message and hint, in one sentence.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        self.hint().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// A guest's text without control characters, and not too much of it.
fn shown(text: &str) -> String {
    text.chars()
        .take(MAX_SHOWN)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}
