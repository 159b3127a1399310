//! The policy of one sandbox: compiled once of what the user asked for, replaced as a whole when the user
//! changes it. It denies what it cannot decide.
//!
//! Names are decided by the allow-list; addresses by what they are. A public address needs no entry of its
//! own where its name is allowed. One that is not public needs to be named: by an entry that means it (see
//! [`Entry`]), or by `add_hosts` for that name. With `block_private_ips` off that is not needed, except for
//! addresses that lead to this host itself or to what gives it its identity: loopback, `0.0.0.0/8`, `::`,
//! the metadata services of clouds, and those of its interfaces, public ones too, if it
//! [is told](Policy::with_own_addresses).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use api::network::NetworkSpec;
use api::{Explain, Kind};
use thiserror::Error;

use crate::entry::{Entry, InvalidEntry};
use crate::host::{HostName, InvalidHost};
use crate::rule::{RuleError, Rules};
use crate::secret::{SecretError, SecretValue, Secrets};

mod decide;
#[cfg(test)]
mod tests;

pub use decide::{Admitted, Permit};

/// What a sandbox may reach. Cheap to clone; a change makes another one.
#[derive(Clone)]
pub struct Policy(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    /// Once sealed, a sandbox is never open again by having nothing on its list.
    sealed: bool,
    /// Connections are looked into, sealed or not.
    intercept: bool,
    block_private_ips: bool,
    /// Passthrough hosts are among them, so that the user can take them away.
    allowed: Vec<Entry>,
    passthrough: Arc<[Entry]>,
    added_hosts: Arc<[(IpAddr, HostName)]>,
    own_addresses: Arc<[IpAddr]>,
    secrets: Arc<Secrets>,
    rules: Rules,
}

/// How much of the network there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Everything public, and nobody looks.
    Open,
    /// Everything public that can be looked into: no UDP but DNS.
    Observed,
    /// What is allowed, nothing else.
    Sealed,
}

impl Policy {
    /// What the user asked for, as something that decides. `values` are the secrets' by name.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] if that makes no sense or is not safe.
    pub fn compile(
        spec: &NetworkSpec,
        add_hosts: &[(IpAddr, String)],
        values: BTreeMap<String, SecretValue>,
    ) -> Result<Self, PolicyError> {
        let passthrough = parse_entries(&spec.passthrough_hosts)?;
        if let Some(entry) = passthrough.iter().find(|entry| !matches!(entry, Entry::Glob { .. })) {
            return Err(PolicyError::PassthroughAddress(entry.clone()));
        }
        let mut allowed = Vec::new();
        for entry in parse_entries(&spec.allowed_hosts)?.iter().chain(&passthrough) {
            add_entry(&mut allowed, entry);
        }
        let added_hosts: Result<_, PolicyError> = add_hosts.iter().map(parse_added_host).collect();
        let secrets = Secrets::compile(&spec.secrets, values)?;
        if let Some((secret, entry)) = secrets.behind(&passthrough) {
            return Err(PolicyError::SecretBehindPassthrough { secret, entry });
        }
        Ok(Self(Arc::new(Inner {
            sealed: !allowed.is_empty() || !secrets.is_empty(),
            intercept: spec.intercept || !spec.rules.is_empty(),
            block_private_ips: spec.block_private_ips,
            allowed,
            passthrough: passthrough.into(),
            added_hosts: added_hosts?,
            own_addresses: Arc::default(),
            secrets: Arc::new(secrets),
            rules: Rules::compile(&spec.rules, spec.callback_socket.is_some())?,
        })))
    }

    /// A policy for a host with these addresses, which must be named to be reached, even public ones: what
    /// listens there may trust whoever comes from the host itself.
    #[must_use]
    pub fn with_own_addresses(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut inner = Inner::clone(&self.0);
        inner.own_addresses = addresses.into_iter().map(|address| address.to_canonical()).collect();
        Self(Arc::new(inner))
    }

    /// How much of the network there is. A sealed sandbox whose list has `*` is observed until that is
    /// taken away.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match (self.0.sealed, self.0.intercept) {
            (true, _) if !self.0.allowed.iter().any(Entry::is_everything) => Mode::Sealed,
            (true, _) | (false, true) => Mode::Observed,
            (false, false) => Mode::Open,
        }
    }

    /// Whether TLS is ended and HTTP parsed.
    #[must_use]
    pub fn looks_inside(&self) -> bool {
        self.mode() != Mode::Open
    }

    /// A policy that allows more. It is sealed, unless `*` is on its list.
    #[must_use]
    pub fn add(&self, entries: &[Entry]) -> Self {
        let mut inner = Inner::clone(&self.0);
        for entry in entries {
            add_entry(&mut inner.allowed, entry);
        }
        inner.sealed |= !entries.is_empty();
        Self(Arc::new(inner))
    }

    /// A policy that allows less. What was sealed stays so, with nothing on its list too. The hosts of
    /// secrets stay allowed.
    #[must_use]
    pub fn remove(&self, entries: &[Entry]) -> Self {
        let mut inner = Inner::clone(&self.0);
        inner.allowed.retain(|entry| !entries.contains(entry));
        Self(Arc::new(inner))
    }

    /// The allow-list, with passthrough hosts and without those of secrets, as the user wrote it.
    #[must_use]
    pub fn allowed(&self) -> Vec<String> {
        self.0.allowed.iter().map(Entry::to_string).collect()
    }

    /// The addresses that the user gave to a name, in their order.
    #[must_use]
    pub fn added_host(&self, name: &HostName) -> Vec<IpAddr> {
        self.0.added_hosts.iter().filter(|(_, added)| added == name).map(|&(address, _)| address).collect()
    }

    /// The secrets.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.0.secrets
    }

    /// The rules for requests and responses.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.0.rules
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("mode", &self.mode())
            .field("allowed", &self.allowed())
            .field("block_private_ips", &self.0.block_private_ips)
            .field("passthrough", &self.0.passthrough)
            .field("added_hosts", &self.0.added_hosts)
            .field("secrets", &self.0.secrets)
            .finish()
    }
}

/// Why what the user asked for is no policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// A host of a list.
    #[error(transparent)]
    Entry(#[from] InvalidEntry),
    /// A name of `add_hosts`.
    #[error("{name:?} is no name for an address")]
    AddedHost {
        /// What was given.
        name: String,
        /// What is odd about it.
        source: InvalidHost,
    },
    /// TLS names no addresses, so that none can pass by its server name.
    #[error("{0} is an address: connections pass by the name in TLS, which has none")]
    PassthroughAddress(Entry),
    /// A connection that nobody looks into gets no secret.
    #[error("the secret {secret} is for {entry}, whose connections pass as they are")]
    SecretBehindPassthrough {
        /// The secret's name.
        secret: String,
        /// Its host.
        entry: Entry,
    },
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

impl Explain for PolicyError {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Entry(error) => error.hint(),
            Self::Secret(error) => error.hint(),
            Self::Rule(error) => error.hint(),
            Self::AddedHost { .. } => Some("write --add-host NAME:ADDRESS".to_owned()),
            Self::PassthroughAddress(_) => {
                Some("allow the address with --allow-host ADDRESS:PORT".to_owned())
            }
            Self::SecretBehindPassthrough { .. } => {
                Some("give the host to the secret, or to --passthrough-host, not to both".to_owned())
            }
        }
    }
}

/// The hosts of a list.
fn parse_entries(texts: &[String]) -> Result<Vec<Entry>, InvalidEntry> {
    texts.iter().map(|text| text.parse()).collect()
}

fn parse_added_host((address, name): &(IpAddr, String)) -> Result<(IpAddr, HostName), PolicyError> {
    HostName::from_user(name)
        .map(|parsed| (address.to_canonical(), parsed))
        .map_err(|source| PolicyError::AddedHost { name: name.clone(), source })
}

fn add_entry(list: &mut Vec<Entry>, entry: &Entry) {
    if !list.contains(entry) {
        list.push(entry.clone());
    }
}
