//! Secrets: what the guest has in their place, whose they are, and their values, which only ever leave in
//! requests to their own hosts. Nothing shows a value, and its memory is wiped; copies that TLS, HTTP and
//! the automata that search for it make of it are not.

use std::collections::BTreeMap;
use std::fmt;

use api::network::SecretSpec;
use api::{Explain, Kind};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::denial::{Denial, Reason};
use crate::entry::{Entry, InvalidEntry};
use crate::policy::Permit;

mod form;
mod mask;
mod placeholder;
mod substitute;
#[cfg(test)]
mod tests;

pub use mask::{LeakScanner, MaskStream, Masker};
pub use placeholder::placeholder;

use mask::Cache;
use placeholder::Finder;

/// The longest value, bytes: servers take no longer headers. Stops a file given by mistake.
const MAX_VALUE: usize = 16 * 1024;

/// The most secrets of a sandbox, and the most bytes of all their values. Stops a client's request from
/// filling our memory with automata that search for them.
const MAX_SECRETS: usize = 256;
const MAX_VALUES: usize = 128 * 1024;

/// The value of a secret. Wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<String>);

impl SecretValue {
    /// A value that can stand in a header.
    ///
    /// # Errors
    ///
    /// [`InvalidSecret`] says why it cannot, without telling the value.
    pub fn new(value: String) -> Result<Self, InvalidSecret> {
        let value = Zeroizing::new(value);
        if value.is_empty() {
            return Err(InvalidSecret::Empty);
        }
        if value.len() > MAX_VALUE {
            return Err(InvalidSecret::TooLong);
        }
        if value.ends_with('\n') {
            return Err(InvalidSecret::LineBreak);
        }
        if value.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(InvalidSecret::Control);
        }
        if value.starts_with(' ') || value.ends_with(' ') {
            return Err(InvalidSecret::Space);
        }
        Ok(Self(value))
    }

    /// The value itself, for whoever sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SecretValue {
    type Error = InvalidSecret;

    fn try_from(value: String) -> Result<Self, InvalidSecret> {
        Self::new(value)
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Why a text cannot be a secret's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidSecret {
    /// Nothing would be hidden.
    #[error("the value is empty")]
    Empty,
    /// No server takes such a header.
    #[error("the value has more than {MAX_VALUE} bytes")]
    TooLong,
    /// As from a file.
    #[error("the value ends with a line break")]
    LineBreak,
    /// It would end the header, or hide something in it.
    #[error("the value has a control character, which no header can have")]
    Control,
    /// Servers take it off.
    #[error("the value begins or ends with a space")]
    Space,
}

impl Explain for InvalidSecret {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }
}

/// All secrets of a sandbox.
pub struct Secrets {
    secrets: Vec<Secret>,
    /// `None` without secrets.
    finder: Option<Finder>,
    maskers: Cache,
}

struct Secret {
    name: String,
    placeholder: String,
    value: SecretValue,
    hosts: Vec<SecretHost>,
    mask: bool,
}

/// A host that gets a secret.
struct SecretHost {
    entry: Entry,
    /// Over plain HTTP, too.
    plain: bool,
}

impl Secrets {
    /// The secrets of a specification, with their values by name.
    ///
    /// # Errors
    ///
    /// [`SecretError`] says which of them makes no sense.
    pub(crate) fn compile(
        specs: &BTreeMap<String, SecretSpec>,
        mut values: BTreeMap<String, SecretValue>,
    ) -> Result<Self, SecretError> {
        let secrets: Result<Vec<_>, _> = specs
            .iter()
            .map(|(name, spec)| {
                let value = values.remove(name).ok_or_else(|| SecretError::NoValue { name: name.clone() })?;
                Secret::compile(name, spec, value)
            })
            .collect();
        let secrets = secrets?;
        if let Some((name, _)) = values.pop_first() {
            return Err(SecretError::Unknown { name });
        }
        check_together(&secrets)?;
        let finder = match secrets.as_slice() {
            [] => None,
            some => Some(Finder::new(some.iter().map(|secret| secret.placeholder.as_str()))?),
        };
        let maskers = Cache::new(&secrets)?;
        Ok(Self { secrets, finder, maskers })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// What the guest's environment has of them: names and placeholders.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.secrets.iter().map(|secret| (secret.name.as_str(), secret.placeholder.as_str()))
    }

    /// The hosts that get secrets, with the secret's name.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.secrets
            .iter()
            .flat_map(|secret| secret.hosts.iter().map(|host| (secret.name.as_str(), &host.entry)))
    }

    /// A secret and the host of it that is plainly one of `passthrough`.
    pub(crate) fn behind(&self, passthrough: &[Entry]) -> Option<(String, Entry)> {
        let hidden = |entry: &Entry| passthrough.iter().any(|through| through.covers(entry));
        let (secret, entry) = self.entries().find(|(_, entry)| hidden(entry))?;
        Some((secret.to_owned(), entry.clone()))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.environment()).finish()
    }
}

impl Secret {
    fn compile(name: &str, spec: &SecretSpec, value: SecretValue) -> Result<Self, SecretError> {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(SecretError::Name { name: name.to_owned() });
        }
        if !placeholder::is_valid(&spec.placeholder) {
            return Err(SecretError::Placeholder { name: name.to_owned() });
        }
        let hosts: Result<Vec<_>, _> = spec.hosts.iter().map(|host| host.parse()).collect();
        let hosts: Vec<SecretHost> =
            hosts.map_err(|source| SecretError::Host { name: name.to_owned(), source })?;
        if hosts.is_empty() {
            return Err(SecretError::NoHost { name: name.to_owned() });
        }
        if hosts.iter().any(|host| host.entry.is_for_every_host()) {
            return Err(SecretError::EveryHost { name: name.to_owned() });
        }
        Ok(Self {
            name: name.to_owned(),
            placeholder: spec.placeholder.clone(),
            value,
            hosts,
            mask: spec.mask,
        })
    }

    /// Whether the host is one of its own.
    fn is_for(&self, permit: &Permit) -> bool {
        self.hosts.iter().any(|host| host.entry.allows(permit.host(), permit.port()))
    }

    /// Whether the value may go to the host.
    ///
    /// # Errors
    ///
    /// [`Reason::SecretWrongHost`] and [`Reason::PlainHttpSecret`].
    fn check(&self, permit: &Permit, https: bool) -> Result<(), Denial> {
        let own = |host: &&SecretHost| host.entry.allows(permit.host(), permit.port());
        let secret = self.name.clone();
        let reason = if !self.is_for(permit) {
            Reason::SecretWrongHost { secret }
        } else if !https && !self.hosts.iter().filter(own).any(|host| host.plain) {
            Reason::PlainHttpSecret { secret }
        } else {
            return Ok(());
        };
        Err(Denial::new(reason, permit.host(), permit.port()).by(format!("secret {}", self.name)))
    }
}

impl std::str::FromStr for SecretHost {
    type Err = InvalidEntry;

    fn from_str(text: &str) -> Result<Self, InvalidEntry> {
        let text = text.trim();
        let (plain, entry) = match text.strip_prefix("http://") {
            Some(entry) => (true, entry),
            None => (false, text.strip_prefix("https://").unwrap_or(text)),
        };
        Ok(Self { entry: entry.strip_suffix('/').unwrap_or(entry).parse()?, plain })
    }
}

/// What is odd about a secret. None of it tells a value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SecretError {
    /// No variable can have that name.
    #[error("{name:?} is no name for a secret")]
    Name {
        /// The name.
        name: String,
    },
    /// Not visible ASCII of a sensible length.
    #[error("the placeholder of {name} is not 8 to 256 visible ASCII characters without spaces")]
    Placeholder {
        /// The secret's name.
        name: String,
    },
    /// They could not be told apart.
    #[error("the placeholder of {name} is part of that of {other}")]
    PlaceholderInAnother {
        /// The secret's name.
        name: String,
        /// The other one's.
        other: String,
    },
    /// The guest would have the value.
    #[error("the value of {name} is part of the placeholder of {other}")]
    ValueInPlaceholder {
        /// The secret's name.
        name: String,
        /// The other one's, or the same.
        other: String,
    },
    /// It has no use.
    #[error("the secret {name} has no host")]
    NoHost {
        /// The secret's name.
        name: String,
    },
    /// It would be no secret.
    #[error("the secret {name} is for every host")]
    EveryHost {
        /// The secret's name.
        name: String,
    },
    /// A host that cannot be parsed.
    #[error("a host of the secret {name} is odd")]
    Host {
        /// The secret's name.
        name: String,
        /// What is odd about it.
        source: InvalidEntry,
    },
    /// The caller has not brought it.
    #[error("the secret {name} has no value")]
    NoValue {
        /// The secret's name.
        name: String,
    },
    /// The caller has brought it for nothing.
    #[error("there is a value for {name}, which is no secret")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The automaton that finds them cannot be built.
    #[error("the secrets are too many or too long")]
    TooLarge,
}

impl Explain for SecretError {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoHost { name } | Self::EveryHost { name } => {
                Some(format!("say which hosts get it: --secret {name}@api.example.com"))
            }
            Self::PlaceholderInAnother { .. }
            | Self::Placeholder { .. }
            | Self::ValueInPlaceholder { .. } => {
                Some("leave the placeholder out: a random one is made".to_owned())
            }
            Self::Host { source, .. } => source.hint(),
            _ => None,
        }
    }
}

/// Checks what only shows when all secrets are seen together.
fn check_together(secrets: &[Secret]) -> Result<(), SecretError> {
    let bytes: usize = secrets.iter().map(|secret| secret.value.expose().len()).sum();
    if secrets.len() > MAX_SECRETS || bytes > MAX_VALUES {
        return Err(SecretError::TooLarge);
    }
    for (i, secret) in secrets.iter().enumerate() {
        for (j, other) in secrets.iter().enumerate() {
            let names = || (secret.name.clone(), other.name.clone());
            if i != j && other.placeholder.contains(&secret.placeholder) {
                let (name, other) = names();
                return Err(SecretError::PlaceholderInAnother { name, other });
            }
            if other.placeholder.contains(secret.value.expose()) {
                let (name, other) = names();
                return Err(SecretError::ValueInPlaceholder { name, other });
            }
        }
    }
    Ok(())
}
