//! The network of a sandbox: what its VM's interface is connected to, what the guest is told of it, and
//! the policy, which can change while it runs. What is allowed is `policy`'s, how it is carried `net`'s.

mod environment;
pub mod log;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use api::rpc::{AllowListAddResult, AllowListDeleteResult};
use api::spec::SandboxSpec;
use api::{Explain, Kind};
use net::{Config, NetworkError, Reporter, addresses};
use policy::entry::{Entry, InvalidEntry};
use policy::secret::SecretValue;
use policy::{Mode, Policy, PolicyError};
use proto::boot;
use sys::packet::PacketSocket;
use thiserror::Error;
use tokio::sync::watch;
use vmm::Nic;

pub(crate) use environment::of_network as environment;
pub use net::stack::{MAX_MTU, MIN_MTU};

use crate::log::{Log, NETWORK};

/// What decides about the network of a sandbox that is made from `spec`; `None` if it has none.
/// `values` are those of its secrets, by their names.
///
/// # Errors
/// When what was asked for makes no sense.
pub fn policy(
    spec: &SandboxSpec,
    values: BTreeMap<String, SecretValue>,
) -> Result<Option<Policy>, PolicyError> {
    if spec.network.no_network {
        return Ok(None);
    }
    Policy::compile(&spec.network, &spec.add_hosts, values).map(Some)
}

/// The list of allowed hosts cannot be changed.
#[derive(Debug, Error)]
pub enum AllowListError {
    /// There is no network.
    #[error("the sandbox has no network")]
    NoNetwork,
    /// Its connections are not looked into, so nothing could be sealed.
    #[error("the sandbox's network is open: it was started without allowed hosts and --network-intercept")]
    Open,
    /// One of the hosts is none.
    #[error(transparent)]
    Entry(#[from] InvalidEntry),
}

impl Explain for AllowListError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoNetwork | Self::Open => Kind::Conflict,
            Self::Entry(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoNetwork => None,
            Self::Open => Some("start it with --network-intercept, then hosts can be added".to_owned()),
            Self::Entry(error) => error.hint(),
        }
    }
}

/// The network of a sandbox that runs. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Network {
    network: net::Network,
    /// Changed by one at a time.
    policy: Mutex<watch::Sender<Policy>>,
}

/// The network interface of a VM that has one.
pub(crate) fn nic(spec: &SandboxSpec) -> Nic {
    Nic { mac: addresses::GUEST_MAC, mtu: mtu(spec) }
}

/// What its guest is told of it.
pub(crate) fn of_guest(spec: &SandboxSpec) -> boot::Network {
    boot::Network {
        mtu: mtu(spec),
        addresses: vec![
            (addresses::GUEST_V4.into(), addresses::PREFIX_V4),
            (addresses::GUEST_V6.into(), addresses::PREFIX_V6),
        ],
        gateways: vec![addresses::GATEWAY_V4.into(), addresses::GATEWAY_V6.into()],
        gateway_mac: addresses::GATEWAY_MAC,
    }
}

fn mtu(spec: &SandboxSpec) -> u16 {
    spec.network.mtu.unwrap_or(net::stack::DEFAULT_MTU)
}

impl Network {
    /// Starts it on our end of a VM's cable, with its log in `directory`. Must be called within a tokio
    /// runtime.
    pub(crate) fn start(
        spec: &SandboxSpec,
        policy: Policy,
        link: vmm::Link,
        directory: &Path,
    ) -> Result<Self, StartError> {
        let journal = Log::open(directory, NETWORK).map_err(StartError::Log)?;
        let link = match link {
            vmm::Link::Stream(socket) => net::Link::Stream(socket),
            vmm::Link::Packets(socket) => {
                net::Link::Packet(PacketSocket::new(socket).map_err(StartError::Link)?)
            }
        };
        let (policy, decides) = watch::channel(policy);
        let config = Config {
            policy: decides,
            dns_servers: spec.dns_servers.clone(),
            mtu: mtu(spec),
            reporter: Reporter::new(move |event| log::append(&journal, event)),
            callback_socket: spec.network.callback_socket.clone(),
        };
        let network = net::Network::start(link, config)?;
        Ok(Self { network, policy: Mutex::new(policy) })
    }

    /// The certificate that the guest is to trust, PEM, if there is one. It may have to be waited for.
    pub(crate) fn certificate(&self) -> Result<Option<String>, StartError> {
        Ok(self.network.certificate()?)
    }

    /// Ends it for the guest, for good; see [`net::Network::stop`].
    pub(crate) fn stop(&self) {
        self.network.stop();
    }

    /// Allows hosts, for new connections and requests.
    pub(crate) fn allow(&self, hosts: &[String]) -> Result<AllowListAddResult, AllowListError> {
        let (before, allowed_hosts) = self.change(hosts, Policy::add)?;
        let added = allowed_hosts.iter().filter(|host| !before.contains(host)).cloned().collect();
        Ok(AllowListAddResult { added, allowed_hosts })
    }

    /// Takes hosts back. What is open to them ends.
    pub(crate) fn disallow(&self, hosts: &[String]) -> Result<AllowListDeleteResult, AllowListError> {
        let (before, allowed_hosts) = self.change(hosts, Policy::remove)?;
        let removed = before.into_iter().filter(|host| !allowed_hosts.contains(host)).collect();
        Ok(AllowListDeleteResult { removed, allowed_hosts })
    }

    /// Gives the hosts that were allowed before, and those that are after.
    fn change(
        &self,
        hosts: &[String],
        change: impl FnOnce(&Policy, &[Entry]) -> Policy,
    ) -> Result<(Vec<String>, Vec<String>), AllowListError> {
        let entries: Vec<Entry> = hosts.iter().map(|host| host.parse()).collect::<Result<_, _>>()?;
        let policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        let before = policy.borrow().clone();
        if before.mode() == Mode::Open {
            return Err(AllowListError::Open);
        }
        let after = change(&before, &entries);
        let allowed = after.allowed();
        policy.send_replace(after);
        Ok((before.allowed(), allowed))
    }
}

/// The network could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its log.
    #[error("cannot make the log of the sandbox's network")]
    Log(#[source] io::Error),
    /// The connection to its VM.
    #[error("cannot make the connection to the VM's network interface")]
    Link(#[source] io::Error),
    /// What carries it.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl Explain for StartError {
    fn kind(&self) -> Kind {
        match self {
            Self::Log(error) | Self::Link(error) => api::error::io_kind(error),
            Self::Network(error) => error.kind(),
        }
    }
}
