//! Ports of this machine that lead to programs in a sandbox, through its agent: no network card needed.
//!
//! Whoever can connect to one of the addresses reaches the program behind it; so the caller says which
//! addresses they are, and there is no default here.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use api::{Binding, Explain, Forward, Kind};
use proto::class::Class;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};

use crate::agent::Agent;
use listen::Listener;
use serving::Serving;

mod listen;
mod relay;
mod serving;
#[cfg(test)]
mod tests;

/// Connections of one sandbox at a time; others wait in the kernel's queue. Some streams are left for
/// those who call [`Agent::connect`] themselves.
const MAX_CONNECTIONS: usize = Class::Connection.streams() - 48;

/// Ports below this need privileges (the kernel's default for `ip_unprivileged_port_start`).
const FIRST_UNPRIVILEGED: u16 = 1024;

/// The ports could not be published; what was published before still is.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The same port of the same address twice.
    #[error("port {port} of {address} is to be published twice")]
    Twice {
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
    },
    /// Another program has the port.
    #[error("port {port} of {address} is already in use")]
    InUse {
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
        /// The kernel's words.
        source: io::Error,
    },
    /// We may not have the port.
    #[error("port {port} of {address} needs privileges")]
    Privileged {
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
        /// The kernel's words.
        source: io::Error,
    },
    /// The address is no address of this machine.
    #[error("{address} is not an address of this machine")]
    NoSuchAddress {
        /// The address.
        address: IpAddr,
        /// The kernel's words.
        source: io::Error,
    },
    /// See [`Ports::close`].
    #[error("the sandbox is ending")]
    Ending,
    /// Anything else.
    #[error("cannot listen on port {port} of {address}")]
    Listen {
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
        /// The kernel's words.
        source: io::Error,
    },
}

impl PublishError {
    fn of(address: SocketAddr, source: io::Error) -> Self {
        let (address, port) = (address.ip(), address.port());
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address, port, source },
            io::ErrorKind::PermissionDenied if port < FIRST_UNPRIVILEGED => {
                Self::Privileged { address, port, source }
            }
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress { address, source },
            _ => Self::Listen { address, port, source },
        }
    }
}

impl Explain for PublishError {
    fn kind(&self) -> Kind {
        match self {
            Self::Twice { .. } | Self::NoSuchAddress { .. } => Kind::InvalidInput,
            Self::InUse { .. } | Self::Ending => Kind::Conflict,
            Self::Privileged { .. } => Kind::HostUnready,
            Self::Listen { source, .. } => api::error::io_kind(source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::InUse { .. } => {
                Some("choose another local port, or 0 for one that is free (0:REMOTE)".to_owned())
            }
            Self::Privileged { port, .. } => Some(format!(
                "choose a local port from {FIRST_UNPRIVILEGED} on, such as {}",
                u32::from(*port) + 8000
            )),
            Self::Twice { .. } | Self::NoSuchAddress { .. } | Self::Ending | Self::Listen { .. } => None,
        }
    }
}

/// What all who publish ports of one sandbox share. Clones are the same.
#[derive(Debug, Clone)]
pub struct Ports {
    agent: Agent,
    /// One for each connection.
    places: Arc<Semaphore>,
    /// Whether anybody may listen; those who do have a receiver each.
    open: Arc<watch::Sender<bool>>,
}

impl Ports {
    /// The ports of the sandbox in which this agent is.
    #[must_use]
    pub fn new(agent: Agent) -> Self {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { agent, places, open: Arc::new(watch::Sender::new(true)) }
    }

    /// Publishes nothing yet.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher { ports: self.clone(), published: Vec::new() }
    }

    /// Closes all that is published, whoever did it, for good, and resolves when nobody listens any
    /// more: then the same ports can be had again.
    pub async fn close(&self) {
        self.open.send_replace(false);
        self.open.closed().await;
    }

    /// For whoever is going to listen. It is counted before it is asked, so that [`Self::close`] waits
    /// for what is done meanwhile.
    fn opened(&self) -> Result<watch::Receiver<bool>, PublishError> {
        let open = self.open.subscribe();
        if *open.borrow() { Ok(open) } else { Err(PublishError::Ending) }
    }
}

/// What one of them publishes. Dropping it closes its listeners and their connections soon.
#[derive(Debug)]
pub struct Publisher {
    ports: Ports,
    published: Vec<Published>,
}

/// One listener.
#[derive(Debug)]
struct Published {
    address: IpAddr,
    /// With the port that was asked for, perhaps 0.
    forward: Forward,
    binding: Binding,
    /// Its task has it.
    listener: Weak<Listener>,
    _serving: Serving,
}

/// What [`Publisher::replace`] is to do for one address and forward.
enum Step {
    /// Leave the listener at this place as it is.
    Keep(usize),
    /// Serve this listener for another port of the sandbox.
    Serve(Arc<Listener>),
}

impl Publisher {
    /// Makes `forwards` on each of `addresses` all that is published, and says where each is, in that
    /// order. What is published already stays as it is, connections included; connections of what is
    /// not published any more are closed. IPv6 addresses do not stand for IPv4 ones.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If one of them cannot be had; then nothing has changed.
    pub fn replace(
        &mut self,
        forwards: &[Forward],
        addresses: &[IpAddr],
    ) -> Result<Vec<Binding>, PublishError> {
        let open = self.ports.opened()?;
        let wanted = wanted(forwards, addresses)?;
        let asked = wanted.iter().map(|(address, forward)| SocketAddr::new(*address, forward.local_port()));
        let asked: HashSet<SocketAddr> = asked.collect();
        let mut kept = HashSet::new();
        let mut steps = Vec::with_capacity(wanted.len());
        for (address, forward) in &wanted {
            steps.push(match self.position(*address, *forward, &kept, &asked) {
                Some(at) => {
                    kept.insert(at);
                    Step::Keep(at)
                }
                None => Step::Serve(self.listener(*address, forward.local_port(), &open)?),
            });
        }
        // Nothing fails from here on.
        let mut before: Vec<Option<Published>> = self.published.drain(..).map(Some).collect();
        for ((address, forward), step) in wanted.into_iter().zip(steps) {
            let published = match step {
                Step::Keep(at) => before[at].take().expect("each is kept once"),
                Step::Serve(listener) => self.serve(address, forward, listener),
            };
            self.published.push(published);
        }
        Ok(self.bindings())
    }

    /// What is published.
    #[must_use]
    pub fn bindings(&self) -> Vec<Binding> {
        self.published.iter().map(|published| published.binding).collect()
    }

    /// Where the same is published already. A port that was any free one is not left to such a wish
    /// again if another one of `asked` names it.
    fn position(
        &self,
        address: IpAddr,
        forward: Forward,
        kept: &HashSet<usize>,
        asked: &HashSet<SocketAddr>,
    ) -> Option<usize> {
        let same = |published: &Published| match forward.local_port() {
            0 => published.forward.local_port() == 0 && !asked.contains(&published.binding.local()),
            port => published.binding.local_port == port,
        };
        self.published.iter().enumerate().position(|(at, published)| {
            published.address == address
                && published.binding.remote_port == forward.remote_port()
                && same(published)
                && !kept.contains(&at)
        })
    }

    /// A listener on that port: one that we have, or a new one.
    fn listener(
        &self,
        address: IpAddr,
        port: u16,
        open: &watch::Receiver<bool>,
    ) -> Result<Arc<Listener>, PublishError> {
        let address = SocketAddr::new(address, port);
        let ours = self.published.iter().find(|published| published.binding.local() == address);
        if let Some(listener) = ours.and_then(|published| published.listener.upgrade()) {
            return Ok(listener);
        }
        let listener = Listener::new(address, open.clone());
        listener.map(Arc::new).map_err(|source| PublishError::of(address, source))
    }

    fn serve(&self, address: IpAddr, forward: Forward, listener: Arc<Listener>) -> Published {
        let local_port = listener.socket.local_addr().map_or(forward.local_port(), |local| local.port());
        let binding = Binding { address, local_port, remote_port: forward.remote_port() };
        let handle = Arc::downgrade(&listener);
        let serving = Serving::start(listener, self.ports.clone(), forward.remote_port());
        Published { address, forward, binding, listener: handle, _serving: serving }
    }
}

/// Every forward on every address, once.
fn wanted(forwards: &[Forward], addresses: &[IpAddr]) -> Result<Vec<(IpAddr, Forward)>, PublishError> {
    let mut seen = HashSet::new();
    let mut wanted = Vec::new();
    for forward in forwards {
        for address in addresses {
            let port = forward.local_port();
            if port != 0 && !seen.insert((*address, port)) {
                return Err(PublishError::Twice { address: *address, port });
            }
            wanted.push((*address, *forward));
        }
    }
    Ok(wanted)
}
