//! The decisions of a policy, and the types that prove them: [`Permit`] for a host, [`Admitted`] for an
//! address. Only this module makes them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::address::Range;
use crate::denial::{Denial, Reason};
use crate::entry::Entry;
use crate::host::{Host, HostName};

use super::{Mode, Policy};

/// What decides when no entry does.
mod built_in {
    pub(super) const OPEN: &str = "the network is open";
    pub(super) const SEALED: &str = "the network is sealed";
    pub(super) const PRIVATE: &str = "private addresses are blocked";
    pub(super) const OWN: &str = "this host's own addresses are blocked";
    pub(super) const WEB_PORT: &str = "only TLS and HTTP on ports 80 and 443";
    pub(super) const OTHER_ADDRESS: &str = "an address is reached as itself";
}

/// The ports of the web: what speaks neither TLS nor HTTP there passes only if an entry has the port.
const WEB: [u16; 2] = [80, 443];

/// Proof that a host may be reached on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    host: Host,
    port: u16,
    rule: Arc<str>,
}

impl Permit {
    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The entry, secret or built-in that allows it.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

/// Proof that an address may be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    address: SocketAddr,
    rule: Arc<str>,
}

impl Admitted {
    /// The address, the one that was checked.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The entry, secret or built-in that allows it.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

impl Policy {
    /// Whether the guest may look a name up.
    ///
    /// # Errors
    ///
    /// [`Reason::HostNotAllowed`] if no entry has the name on any port.
    pub fn resolve(&self, name: &HostName) -> Result<(), Denial> {
        if self.mode() != Mode::Sealed
            || self.0.allowed.iter().any(|entry| entry.knows(name))
            || self.0.secrets.entries().any(|(_, entry)| entry.knows(name))
        {
            return Ok(());
        }
        Err(Denial::new(Reason::HostNotAllowed, name, 0).by(built_in::SEALED))
    }

    /// Whether a host may be reached on a port. A name's addresses are yet to be [admitted](Self::admit).
    ///
    /// # Errors
    ///
    /// [`Reason::HostNotAllowed`], and [`Reason::PrivateAddress`] for an address.
    pub fn host(&self, host: &Host, port: u16) -> Result<Permit, Denial> {
        if let Host::Address(address) = host {
            self.check_private(*address, Some(port), None)
                .map_err(|(reason, rule)| Denial::new(reason, host, port).by(rule))?;
        }
        let rule = self
            .rule(host, port)
            .ok_or_else(|| Denial::new(Reason::HostNotAllowed, host, port).by(built_in::SEALED))?;
        Ok(Permit { host: host.clone(), port, rule })
    }

    /// Whether a permitted host may be reached by an address that it was resolved to.
    ///
    /// # Errors
    ///
    /// [`Reason::PrivateAddress`]; [`Reason::AddressNotResolved`] if the host is another address.
    pub fn admit(&self, permit: &Permit, address: IpAddr) -> Result<Admitted, Denial> {
        let address = address.to_canonical();
        let denial = |reason, rule| Denial::new(reason, &permit.host, permit.port).by(rule);
        if let Host::Address(only) = permit.host
            && only != address
        {
            return Err(denial(Reason::AddressNotResolved, built_in::OTHER_ADDRESS));
        }
        self.check_private(address, Some(permit.port), permit.host.name())
            .map_err(|(reason, rule)| denial(reason, rule))?;
        Ok(Admitted { address: SocketAddr::new(address, permit.port), rule: Arc::clone(&permit.rule) })
    }

    /// Whether the guest may be told that a name, which it [may look up](Self::resolve), has an address: on
    /// some port it might be [admitted](Self::admit).
    ///
    /// # Errors
    ///
    /// [`Reason::PrivateAddress`].
    pub fn answerable(&self, name: &HostName, address: IpAddr) -> Result<(), Denial> {
        self.check_private(address.to_canonical(), None, Some(name))
            .map_err(|(reason, rule)| Denial::new(reason, name, 0).by(rule))
    }

    /// Whether an address may be connected to that the guest has sent a packet to; `names` are those that
    /// this sandbox has resolved to it. The names of `add_hosts` need not be among them.
    ///
    /// # Errors
    ///
    /// [`Reason::PrivateAddress`], [`Reason::HostNotAllowed`] if it has names and none is allowed, and
    /// [`Reason::AddressNotResolved`] if it has none.
    pub fn address(&self, address: SocketAddr, names: &[HostName]) -> Result<Admitted, Denial> {
        self.reach(address, names, false)
    }

    /// Whether bytes that are neither TLS nor HTTP may be exchanged with an address. In a sealed sandbox
    /// that needs an entry with the address or with the port where HTTP and TLS are at home: there the name
    /// must be in what is sent, and an address shared with others is no proof of one.
    ///
    /// # Errors
    ///
    /// As for [`Self::address`], and [`Reason::UnknownProtocol`].
    pub fn opaque(&self, address: SocketAddr, names: &[HostName]) -> Result<Admitted, Denial> {
        self.reach(address, names, true)
    }

    /// Whether TLS to a host passes as it is.
    #[must_use]
    pub fn passthrough(&self, host: &HostName, port: u16) -> bool {
        self.0.passthrough.iter().any(|entry| entry.allows_name(host, port))
    }

    fn reach(&self, address: SocketAddr, names: &[HostName], opaque: bool) -> Result<Admitted, Denial> {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let address = SocketAddr::new(ip, port);
        let private = self.check_private(ip, Some(port), None);
        let mut refused = None;
        if private.is_ok() {
            match self.pass(&Host::Address(ip), port, opaque) {
                Ok(rule) => return Ok(Admitted { address, rule }),
                // A name may allow it yet.
                Err(denial) if denial.reason == Reason::HostNotAllowed => {}
                Err(denial) => refused = Some(denial),
            }
        }
        let added = self.0.added_hosts.iter().filter(|(added, _)| *added == ip).map(|(_, name)| name);
        for name in names.iter().chain(added) {
            // For each name: `add_hosts` lets one name have an address that is not public, no other.
            if private.is_err() && self.check_private(ip, Some(port), Some(name)).is_err() {
                continue;
            }
            match self.pass(&Host::Name(name.clone()), port, opaque) {
                Ok(rule) => return Ok(Admitted { address, rule }),
                Err(denial) => refused = refused.or(Some(denial)),
            }
        }
        Err(match (refused, private) {
            (Some(denial), _) => denial,
            (None, Err((reason, rule))) => Denial::new(reason, ip, port).by(rule),
            (None, Ok(())) => Denial::new(Reason::AddressNotResolved, ip, port).by(built_in::SEALED),
        })
    }

    /// The rule by which bytes may go to a host, opaque ones or such as will be looked into.
    fn pass(&self, host: &Host, port: u16, opaque: bool) -> Result<Arc<str>, Denial> {
        let denial = |reason, rule| Denial::new(reason, host, port).by(rule);
        let rule = self.rule(host, port).ok_or_else(|| denial(Reason::HostNotAllowed, built_in::SEALED))?;
        if !opaque || !WEB.contains(&port) || self.mode() != Mode::Sealed {
            return Ok(rule);
        }
        // A secret's entry says where the secret goes, not that anything else is spoken there.
        let explicit = |entry: &&Entry| {
            entry.allows(host, port) && (entry.port().is_some() || !matches!(entry, Entry::Glob { .. }))
        };
        let entry = self.0.allowed.iter().find(explicit);
        entry
            .map(|entry| entry.to_string().into())
            .ok_or_else(|| denial(Reason::UnknownProtocol, built_in::WEB_PORT))
    }

    /// The rule that allows a host on a port, whatever its addresses.
    fn rule(&self, host: &Host, port: u16) -> Option<Arc<str>> {
        if let Some(entry) = self.0.allowed.iter().find(|entry| entry.allows(host, port)) {
            return Some(entry.to_string().into());
        }
        if let Some((secret, entry)) = self.0.secrets.entries().find(|(_, entry)| entry.allows(host, port)) {
            return Some(format!("{entry} of secret {secret}").into());
        }
        (self.mode() != Mode::Sealed).then(|| built_in::OPEN.into())
    }

    /// Whether an address is public, or is one that the user means, maybe by the name that led to it, on
    /// a port or on any.
    fn check_private(
        &self,
        address: IpAddr,
        port: Option<u16>,
        name: Option<&HostName>,
    ) -> Result<(), (Reason, &'static str)> {
        let own = Range::of_own(address, &self.0.own_addresses);
        let Some(range) = own.or_else(|| Range::of(address)) else { return Ok(()) };
        let added = || self.0.added_hosts.iter().any(|(ip, added)| *ip == address && Some(added) == name);
        let mut entries = self.0.allowed.iter().chain(self.0.secrets.entries().map(|(_, entry)| entry));
        if (!self.0.block_private_ips && !range.own)
            || added()
            || entries.any(|entry| entry.means(address, &range, port))
        {
            return Ok(());
        }
        let rule = if range.own { built_in::OWN } else { built_in::PRIVATE };
        Err((Reason::PrivateAddress { address, why: range.why }, rule))
    }
}

impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
