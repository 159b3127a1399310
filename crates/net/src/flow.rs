//! What becomes of a guest's TCP connection. Everything is decided here in one order, and what cannot be
//! decided is refused: by address before it is answered, then by what its first bytes say that it speaks.

mod first;
mod intercept;
mod record;
mod refusal;
mod rewind;
mod watched;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use policy::host::{Host, HostName};
use policy::{Denial, Mode, Permit, Policy, Reason};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::connect::{Alpn, Connect, Io};
use crate::dns;
use crate::http::{self, Session};
use crate::names::Names;
use crate::own;
use crate::report::Reporter;
use crate::sniff::Protocol;
use crate::tls::LateAuthority;
use crate::tunnel::{self, Terms};
use crate::upstream::Upstream;
use first::First;
use record::Record;
use rewind::Rewind;
use watched::Watched;

/// Where DNS is spoken, to whatever address.
const DNS_PORT: u16 = 53;

/// A guest's connection that has not been answered yet.
pub(crate) trait Incoming: Send {
    /// The connection, once it is answered. To drop it without shutting it down resets it.
    type Stream: Io + 'static;

    /// Where it goes.
    fn destination(&self) -> SocketAddr;

    /// Answers it.
    fn accept(self) -> Self::Stream;

    /// Refuses it.
    fn refuse(self);
}

/// What all flows of a sandbox share.
pub(crate) struct Shared {
    /// The policy, whatever it is at the time.
    pub(crate) policy: watch::Receiver<Policy>,
    /// Who connects to upstreams.
    pub(crate) upstream: Arc<Upstream>,
    /// What this sandbox has resolved.
    pub(crate) names: Names,
    /// Who answers look-ups.
    pub(crate) dns: Arc<dns::Service>,
    /// Who makes the certificates for the guest.
    pub(crate) authority: Arc<LateAuthority>,
    /// Who is told of everything.
    pub(crate) reporter: Reporter,
    /// Who answers callbacks of rules.
    pub(crate) callback_socket: Option<PathBuf>,
}

/// Serves one connection of the guest until it ends.
pub(crate) async fn serve<I: Incoming>(incoming: I, shared: Arc<Shared>) {
    let destination = incoming.destination();
    if destination.port() == DNS_PORT {
        return shared.dns.serve_tcp(incoming.accept()).await;
    }
    let names = shared.names.of(destination.ip());
    let mut flow =
        Flow { record: Record::new(&shared.reporter, destination, &names), destination, names, shared };
    let policy = own::told_of(&flow.policy(), destination.ip());
    let admitted = match policy.address(destination, &flow.names) {
        Ok(admitted) => admitted,
        Err(denial) => {
            incoming.refuse();
            return flow.record.denied(&denial);
        }
    };
    // Before the guest is answered, so that it learns of a port on which nobody listens.
    let upstream = match flow.shared.upstream.dial_address(&admitted).await {
        Ok(upstream) => upstream,
        Err(error) => {
            incoming.refuse();
            return flow.record.failed(&error);
        }
    };
    let guest = incoming.accept();
    if flow.policy().mode() == Mode::Open {
        flow.relay(guest, upstream).await;
    } else {
        flow.look(guest, upstream).await;
    }
}

/// A connection that was answered.
struct Flow {
    shared: Arc<Shared>,
    destination: SocketAddr,
    /// The names that this sandbox has resolved to that address.
    names: Vec<HostName>,
    record: Record,
}

impl Flow {
    fn policy(&self) -> Policy {
        self.shared.policy.borrow().clone()
    }

    /// Decides by what the guest says first. What only some flows need is boxed: there may be thousands of
    /// flows, and most of those that last are tunnels or idle connections of HTTP. `upstream` is connected
    /// to where the guest wants to go.
    async fn look<S: Io + 'static>(&mut self, mut guest: S, mut upstream: TcpStream) {
        match first::read(&mut guest, &mut upstream).await {
            First::Guest(Protocol::Tls, read) => Box::pin(self.intercept(guest, read, upstream)).await,
            First::Guest(Protocol::Http1, read) => {
                self.http(Rewind::new(read, guest), upstream, Alpn::Http1).await;
            }
            First::Guest(Protocol::Http2, read) => {
                self.http(Rewind::new(read, guest), upstream, Alpn::Http2).await;
            }
            First::Guest(Protocol::Other, read) => self.relay(Rewind::new(read, guest), upstream).await,
            First::Half(read) => {
                let guest = Rewind::new(read, guest);
                if self.policy().opaque(self.destination, &self.names).is_ok() {
                    self.relay(Watched::new(guest), upstream).await;
                } else {
                    // Its parser is strict, and says why.
                    self.http(guest, upstream, Alpn::Http1).await;
                }
            }
            First::Server { guest: from_guest, server } => {
                self.relay(Rewind::new(from_guest, guest), Rewind::new(server, upstream)).await;
            }
            First::Over => self.record.nothing(),
        }
    }

    /// Plain HTTP. Whom a request is for is in the request; `http` decides about it.
    async fn http<S: Io + 'static>(&self, guest: S, upstream: TcpStream, version: Alpn) {
        let first =
            self.permit_of_destination().map(|permit| (permit, Box::new(upstream) as Box<dyn Io>, version));
        Box::pin(http::serve(guest, version, self.session(None, first))).await;
    }

    fn session(&self, https: Option<Host>, first: Option<(Permit, Box<dyn Io>, Alpn)>) -> Session {
        let upstream = Arc::clone(&self.shared.upstream);
        Session {
            policy: self.shared.policy.clone(),
            https,
            destination: self.destination,
            upstream: upstream as Arc<dyn Connect>,
            reporter: self.shared.reporter.clone(),
            callback_socket: self.shared.callback_socket.clone(),
            first,
        }
    }

    /// For whom the connection to the destination can be used: the only name that it has here, or itself.
    fn permit_of_destination(&self) -> Option<Permit> {
        let host = match self.names.as_slice() {
            [] => Host::from(self.destination.ip()),
            [name] => Host::from(name.clone()),
            _ => return None,
        };
        let permit = self.policy().host(&host, self.destination.port()).ok()?;
        self.is_at_destination(&permit).then_some(permit)
    }

    /// Whether the permitted host is where the guest has connected to, as far as this sandbox knows.
    fn is_at_destination(&self, permit: &Permit) -> bool {
        let address = self.destination.ip().to_canonical();
        let is_its = match permit.host() {
            Host::Name(name) => {
                self.names.contains(name) || self.policy().added_host(name).contains(&address)
            }
            Host::Address(host) => *host == address,
        };
        is_its && own::told_of(&self.policy(), address).admit(permit, address).is_ok()
    }

    /// What nobody parses: all of an open network, and otherwise what is neither TLS nor HTTP.
    async fn relay<S: Io, U: Io>(&mut self, mut guest: S, mut upstream: U) {
        let allowed = |policy: &Policy| match policy.mode() {
            Mode::Open => policy.address(self.destination, &self.names).map(drop),
            Mode::Observed | Mode::Sealed => policy.opaque(self.destination, &self.names).map(drop),
        };
        let hosts = self.names.iter().cloned().map(Host::from).chain([self.destination.ip().into()]);
        let terms = self.terms(allowed, hosts);
        let outcome = tunnel::run(&mut guest, &mut upstream, terms).await;
        self.record.ended(&outcome);
    }

    /// `hosts` are those that may be at the other end, in the clear.
    fn terms<'a>(
        &self,
        allowed: impl Fn(&Policy) -> Result<(), Denial> + Send + Sync + 'a,
        hosts: impl IntoIterator<Item = Host>,
    ) -> Terms<'a> {
        let (policy, port) = (self.policy(), self.destination.port());
        let permits = hosts.into_iter().filter_map(|host| policy.host(&host, port).ok());
        let scanners = permits.filter_map(|permit| policy.secrets().leak_scanner(&permit)).collect();
        let leak = Denial::new(Reason::SecretReflected, self.record.host(), port);
        Terms { policy: self.shared.policy.clone(), allowed: Box::new(allowed), scanners, leak }
    }
}

#[cfg(test)]
mod tests;
