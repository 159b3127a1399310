//! The network of one sandbox, put together: the stack takes the guest's frames, flows and datagrams come
//! out of it, and each is served by the part that decides about it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use api::{Explain, Kind};
use policy::Policy;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::dns;
use crate::flow::{self, Shared};
use crate::names::Names;
use crate::report::Reporter;
use crate::resolve::{self, Resolver};
use crate::stack::{self, Datagram, Incoming, Link, Replies, Settings, Stack, Syn};
use crate::tls::{AuthorityError, LateAuthority};
use crate::udp;
use crate::upstream::{Roots, Upstream};

/// Where DNS is spoken.
const DNS_PORT: u16 = 53;

/// Datagrams that wait to be sent on.
const DATAGRAMS: usize = 256;

/// What a network is made of.
pub struct Config {
    /// What decides, whatever it is at the time.
    pub policy: watch::Receiver<Policy>,
    /// Name servers that look-ups go to; the host's own resolver if empty.
    pub dns_servers: Vec<IpAddr>,
    /// The most bytes of one IP packet.
    pub mtu: u16,
    /// Who is told of what the guest does.
    pub reporter: Reporter,
    /// Who answers callbacks of rules.
    pub callback_socket: Option<PathBuf>,
}

/// The network could not be started.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// The stack's thread.
    #[error("cannot start the network stack")]
    Stack(#[source] std::io::Error),
    /// The sandbox's certificate authority.
    #[error("cannot make a certificate authority for the sandbox")]
    Authority(#[from] AuthorityError),
}

impl Explain for NetworkError {
    fn kind(&self) -> Kind {
        match self {
            Self::Stack(error) => api::error::io_kind(error),
            Self::Authority(_) => Kind::Internal,
        }
    }
}

/// The network of a sandbox. Dropping it ends every connection.
pub struct Network {
    /// If the guest has to trust it.
    authority: Option<Arc<LateAuthority>>,
    tasks: AbortHandle,
    stack: Stack,
}

impl Network {
    /// Starts it. `link` carries the guest's Ethernet frames. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// See [`NetworkError`].
    pub fn start(link: Link, config: Config) -> Result<Self, NetworkError> {
        let Config { policy, dns_servers, mtu, reporter, callback_socket } = config;
        let authority = Arc::new(LateAuthority::default());
        let trusted = policy.borrow().looks_inside().then(|| Arc::clone(&authority));
        if let Some(authority) = trusted.clone() {
            // By the time that its certificate is asked for, it is there.
            tokio::task::spawn_blocking(move || authority.get().map(drop));
        }
        let (stack, incoming) = stack::start(link, Settings { mtu }).map_err(NetworkError::Stack)?;
        let names = Names::new();
        let resolver = Resolver::new(if dns_servers.is_empty() {
            resolve::Upstream::System
        } else {
            let servers = dns_servers.into_iter().map(|server| SocketAddr::new(server, DNS_PORT));
            resolve::Upstream::Servers(servers.collect())
        });
        let shared = Arc::new(Shared {
            policy: policy.clone(),
            upstream: Arc::new(Upstream::new(resolver.clone(), policy.clone(), Roots::of_host())),
            names: names.clone(),
            dns: Arc::new(dns::Service::new(policy.clone(), resolver, names, reporter.clone())),
            authority,
            reporter,
            callback_socket,
        });
        let tasks = tokio::spawn(serve(incoming, stack.replies(), shared)).abort_handle();
        Ok(Self { authority: trusted, tasks, stack })
    }

    /// The certificate of the sandbox's authority, PEM, if the guest has to trust one.
    ///
    /// # Errors
    ///
    /// The authority could not be made.
    pub fn certificate(&self) -> Result<Option<String>, NetworkError> {
        let Some(authority) = &self.authority else { return Ok(None) };
        Ok(Some(authority.get()?.certificate_pem().to_owned()))
    }

    /// Ends it for the guest. What that takes the kernel is waited for when this is dropped.
    pub fn stop(&self) {
        self.stack.stop();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

/// Serves what comes out of the stack. Whatever this has started ends with it.
async fn serve(incoming: Incoming, replies: Replies, shared: Arc<Shared>) {
    let Incoming { tcp, udp } = incoming;
    tokio::join!(serve_tcp(tcp, Arc::clone(&shared)), serve_udp(udp, replies, shared));
}

/// The stack bounds how many flows there are.
async fn serve_tcp(mut syns: mpsc::Receiver<Syn>, shared: Arc<Shared>) {
    let mut flows = JoinSet::new();
    loop {
        tokio::select! {
            syn = syns.recv() => match syn {
                Some(syn) => _ = flows.spawn(flow::serve(syn, Arc::clone(&shared))),
                None => return,
            },
            Some(_) = flows.join_next() => {}
        }
    }
}

/// Look-ups are answered here, whatever address they were sent to; other datagrams are `udp`'s.
async fn serve_udp(mut datagrams: mpsc::Receiver<Datagram>, replies: Replies, shared: Arc<Shared>) {
    let (others, theirs) = mpsc::channel(DATAGRAMS);
    let (names, policy) = (shared.names.clone(), shared.policy.clone());
    let nat =
        udp::nat(theirs, replies.clone(), policy, move |address| names.of(address), shared.reporter.clone());
    let sort = async {
        let mut answers = JoinSet::new();
        loop {
            tokio::select! {
                datagram = datagrams.recv() => match datagram {
                    Some(query) if query.destination.port() == DNS_PORT => {
                        _ = answers.spawn(answer(query, replies.clone(), Arc::clone(&shared)));
                    }
                    // What there is no room for is lost, as on any network.
                    Some(datagram) => _ = others.try_send(datagram),
                    None => return,
                },
                Some(_) = answers.join_next() => {}
            }
        }
    };
    tokio::join!(nat, sort);
}

async fn answer(query: Datagram, replies: Replies, shared: Arc<Shared>) {
    if let Some(answer) = shared.dns.answer(&query.payload, false).await {
        replies.send(query.destination, query.source, answer.into());
    }
}

impl flow::Incoming for Syn {
    type Stream = stack::Stream;

    fn destination(&self) -> SocketAddr {
        Self::destination(self)
    }

    fn accept(self) -> stack::Stream {
        Self::accept(self)
    }

    fn refuse(self) {
        Self::refuse(self);
    }
}
