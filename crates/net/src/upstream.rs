//! The way out: connections of the host's to what the policy has admitted, and TLS on them that verifies
//! whom it speaks to. There is no way to an address but through [`Admitted`].

mod connect;
mod dial;
mod error;
mod roots;

pub use error::DialError;
pub use roots::Roots;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use policy::host::{Host, HostName};
use policy::{Admitted, Permit, Policy};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::own;
use crate::resolve::Resolver;

/// How long it may take to resolve a name and connect: as long as clients wait at most.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take for its side of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Servers whose TLS sessions are remembered, to speak to them sooner the next time.
const MAX_SESSIONS: usize = 64;

/// Connects to hosts on the sandbox's behalf.
pub struct Upstream {
    resolver: Resolver,
    policy: watch::Receiver<Policy>,
    roots: Roots,
    /// Made at the first use: reading the trust store of a system takes milliseconds.
    tls: OnceLock<ClientConfig>,
}

impl Upstream {
    /// `roots` are whom to trust with the certificates of servers.
    #[must_use]
    pub fn new(resolver: Resolver, policy: watch::Receiver<Policy>, roots: Roots) -> Self {
        Self { resolver, policy, roots, tls: OnceLock::new() }
    }

    /// A connection to the permitted host: to one of its addresses, each of which the policy has admitted.
    ///
    /// # Errors
    ///
    /// See [`DialError`].
    pub async fn dial(&self, permit: &Permit) -> Result<TcpStream, DialError> {
        let dialled = timeout(DIAL_TIMEOUT, async {
            let admitted = self.admitted(permit).await?;
            dial::first(&admitted).await
        });
        dialled.await.unwrap_or(Err(DialError::TimedOut))
    }

    /// A connection to one address.
    ///
    /// # Errors
    ///
    /// See [`DialError`].
    pub async fn dial_address(&self, admitted: &Admitted) -> Result<TcpStream, DialError> {
        let dialled = timeout(DIAL_TIMEOUT, dial::first(std::slice::from_ref(admitted)));
        dialled.await.unwrap_or(Err(DialError::TimedOut))
    }

    /// TLS on a connection to `host`, which must prove to be it. `alpn` are the protocols to offer.
    ///
    /// # Errors
    ///
    /// See [`DialError`].
    pub async fn tls(
        &self,
        tcp: TcpStream,
        host: &Host,
        alpn: &[Vec<u8>],
    ) -> Result<TlsStream<TcpStream>, DialError> {
        let mut config = self.config()?;
        config.alpn_protocols = alpn.to_vec();
        let name = match host {
            Host::Name(name) => {
                ServerName::try_from(name.as_str().to_owned()).map_err(|_| DialError::Name)?
            }
            Host::Address(address) => ServerName::IpAddress((*address).into()),
        };
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| DialError::TimedOut)?
            .map_err(DialError::of_tls)
    }

    /// The addresses of the permitted host that the policy admits.
    async fn admitted(&self, permit: &Permit) -> Result<Vec<Admitted>, DialError> {
        let addresses = match permit.host() {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.addresses(name).await?,
        };
        // Asked for after the look-up, which may have taken long.
        let policy = self.policy.borrow().clone();
        let mut admitted = Vec::new();
        let mut denied = None;
        for address in addresses {
            match own::told_of(&policy, address).admit(permit, address) {
                Ok(address) => admitted.push(address),
                Err(denial) => denied = Some(denial),
            }
        }
        match denied {
            Some(denial) if admitted.is_empty() => Err(DialError::Denied(Box::new(denial))),
            _ => Ok(admitted),
        }
    }

    async fn addresses(&self, name: &HostName) -> Result<Vec<IpAddr>, DialError> {
        let added = self.policy.borrow().added_host(name);
        if added.is_empty() { Ok(self.resolver.addresses(name).await?) } else { Ok(added) }
    }

    /// What all TLS connections have in common, their memory of sessions among it.
    fn config(&self) -> Result<ClientConfig, DialError> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let mut config = self.roots.client_config()?;
        config.resumption = Resumption::in_memory_sessions(MAX_SESSIONS);
        Ok(self.tls.get_or_init(|| config).clone())
    }
}

#[cfg(test)]
mod tests;
