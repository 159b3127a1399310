//! The launch recipe: from a specification to a record with its directory and disk, and from that
//! to a VM that takes commands.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::error::with_causes;
use api::image::ImageConfig;
use api::lifecycle::{Phase, Resource};
use api::spec::SandboxSpec;
use api::{Explain, Kind, SandboxId};
use image::store::{ImageRecord, LayerSet, Store, StoreError};
use policy::Policy;
use proto::agent::{Exec, Stdio};
use proto::boot::{BootConfig, HostEntry, Mount, Root};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use vmm::{Access, Disk, Driver, Exit, Machine, MachineSpec, Pace, VmmError};

use crate::agent::{Agent, AgentError};
use crate::boot::{self, BootError, Booted};
use crate::command::{self, CommandError};
use crate::disk::{self, DiskError};
use crate::home::Home;
use crate::log::{self, Log};
use crate::network::{self, Network};
use crate::process;
use crate::random::random;
use crate::running::Sandbox;
use crate::scratch::{self, Blank, ScratchError};
use crate::state::{NewSandbox, State, StateError};
use crate::tenure::{Tenure, TenureError};
use crate::timings::Timings;
use crate::volume::Volumes;

/// The guest's `/init`, built by this crate's build script.
pub(crate) static GUEST: &[u8] = include_bytes!(env!("MATCHLOCK_GUEST"));

/// Serial of the scratch disk; layers are `layer0`, `layer1`, … from the lowest up.
const SCRATCH: &str = "scratch";

/// The scratch disk of a sandbox that is kept, in its directory.
pub(crate) const SCRATCH_FILE: &str = "scratch.ext4";

/// Fresh random bytes that a guest starts with.
const ENTROPY_LEN: usize = 64;

/// A sandbox could not be made, or came to an untimely end.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// Its record or its directory.
    #[error(transparent)]
    Tenure(#[from] TenureError),
    /// Its specification, as it was stored, is not one.
    #[error("the record of sandbox {id} is damaged")]
    Record {
        /// Whose.
        id: SandboxId,
        /// Why.
        source: serde_json::Error,
    },
    /// Its scratch disk.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// A disk of the user's.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its image's layers.
    #[error(transparent)]
    Image(#[from] StoreError),
    /// A layer's file could not be handed on.
    #[error("cannot hand an image layer to the VM")]
    Layer(#[source] std::io::Error),
    /// Its log.
    #[error("cannot make the sandbox's log")]
    Log(#[source] std::io::Error),
    /// No randomness for the guest.
    #[error("cannot get random bytes from the host's kernel")]
    Entropy(#[source] std::io::Error),
    /// The VMM.
    #[error(transparent)]
    Vmm(#[from] VmmError),
    /// The boot conversation.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The VM ended on its own while it booted or while a command ran.
    #[error("the VM ended unexpectedly")]
    Exited(#[source] Exit),
    /// What to run.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Its network.
    #[error(transparent)]
    Network(#[from] network::StartError),
}

impl From<StateError> for LaunchError {
    fn from(error: StateError) -> Self {
        Self::Tenure(error.into())
    }
}

impl Explain for LaunchError {
    fn kind(&self) -> Kind {
        match self {
            Self::Tenure(error) => error.kind(),
            Self::Record { .. } => Kind::Corrupt,
            Self::Scratch(error) => error.kind(),
            Self::Disk(error) => error.kind(),
            Self::Image(error) => error.kind(),
            Self::Layer(error) | Self::Log(error) | Self::Entropy(error) => api::error::io_kind(error),
            Self::Vmm(error) => error.kind(),
            Self::Boot(error) => error.kind(),
            Self::Exited(_) => Kind::Vm,
            Self::Command(error) => error.kind(),
            Self::Agent(error) => error.kind(),
            Self::Network(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Tenure(error) => error.hint(),
            Self::Scratch(error) => error.hint(),
            Self::Disk(error) => error.hint(),
            Self::Image(error) => error.hint(),
            Self::Vmm(error) => error.hint(),
            Self::Boot(error) => error.hint(),
            Self::Command(error) => error.hint(),
            Self::Agent(error) => error.hint(),
            Self::Network(error) => error.hint(),
            Self::Exited(exit) => exit.hint(),
            Self::Record { .. } | Self::Layer(_) | Self::Log(_) | Self::Entropy(_) => None,
        }
    }
}

/// Where sandboxes live on this host.
#[derive(Debug, Clone)]
pub struct Site {
    /// The state directory.
    pub home: Home,
    /// The database in it.
    pub state: Arc<State>,
    /// The images.
    pub images: Store,
}

/// What a sandbox is made from, as it is kept on record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Blueprint {
    /// What was asked for.
    pub spec: SandboxSpec,
    /// The image that this meant then.
    pub image: ImageRecord,
}

impl Blueprint {
    /// Finds what is wrong with it that can be known before a VM runs.
    ///
    /// # Errors
    /// When there is no command to run in a sandbox that would end with it, or it cannot be passed
    /// on.
    pub fn check(&self) -> Result<(), CommandError> {
        match self.resolve(Stdio::Pipes { stdin: false }) {
            Err(CommandError::Nothing) if self.spec.keep => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// The command that it is made for.
    pub(crate) fn resolve(&self, stdio: Stdio) -> Result<Exec, CommandError> {
        command::resolve(&self.inherited(), &self.spec.command, stdio)
    }

    /// The image's configuration with what the sandbox itself adds to every command's environment.
    pub(crate) fn inherited(&self) -> ImageConfig {
        let mut config = self.image.config.clone();
        let added = network::environment(&self.spec.network);
        config.env.extend(added.into_iter().map(|(name, value)| format!("{name}={value}")));
        config
    }

    /// Reads what is on record for `id`.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn read(id: SandboxId, text: &str) -> Result<Self, LaunchError> {
        serde_json::from_str(text).map_err(|source| LaunchError::Record { id, source })
    }
}

/// A sandbox that does not run: its record, its directory, its disk if it is kept.
#[derive(Debug)]
pub struct Created {
    tenure: Tenure,
    blueprint: Blueprint,
    /// The VMM on record.
    backend: String,
    /// What becomes the disk, unless it is kept and has one.
    blank: Option<Blank>,
}

/// What a sandbox is started with.
#[derive(Debug)]
pub struct Engine<'a> {
    /// The VMM.
    pub vmm: &'a Driver,
    /// The guest's kernel.
    pub kernel: &'a Path,
    /// The image's layers.
    pub layers: LayerSet,
    /// Named volumes.
    pub volumes: Volumes,
    /// What decides about its network, with the values of its secrets; see [`network::policy`]. Without
    /// it there is none.
    pub policy: Option<Policy>,
}

impl Created {
    /// Makes a new one with `blank` as its disk, to be run by `backend` ([`Driver::name`]). The caller holds the
    /// image's layers.
    ///
    /// # Errors
    /// See [`LaunchError`]; nothing is left behind.
    pub fn new(site: &Site, blueprint: Blueprint, backend: &str, blank: Blank) -> Result<Self, LaunchError> {
        let spec = &blueprint.spec;
        let text = serde_json::to_string(&blueprint).expect("plain data can be encoded");
        let mut tenure = Tenure::begin(&site.home, &site.state, |id| NewSandbox {
            id,
            name: spec.name.clone(),
            image: spec.image.clone(),
            backend: backend.to_owned(),
            keep: spec.keep,
            spec: text,
            owner_pid: Some(std::process::id()),
        })?;
        let blank = if spec.keep {
            tenure.plan(Resource::ImagePin { path: site.images.pin_path(tenure.directory()) })?;
            site.images.pin(&blueprint.image, tenure.directory())?;
            let path = tenure.directory().join(SCRATCH_FILE);
            tenure.plan(Resource::ScratchDisk { path: path.clone() })?;
            scratch::create_named(&path, blank)?;
            None
        } else {
            Some(blank)
        };
        tenure.advance(Phase::Created)?;
        Ok(Self { tenure, blueprint, backend: backend.to_owned(), blank })
    }

    /// Takes over one that exists; `lock` is its owner's lock.
    ///
    /// # Errors
    /// When that is not so, or its record cannot be read.
    pub fn resume(site: &Site, id: SandboxId, lock: File) -> Result<Self, LaunchError> {
        let record = site.state.record(id).map_err(LaunchError::from)?;
        let blueprint = Blueprint::read(id, &record.spec)?;
        let lock = site.home.accept(id, lock).map_err(TenureError::from)?;
        let tenure = Tenure::resume(&site.home, &site.state, id, Some(lock))?;
        tenure.own()?;
        let blank = (!blueprint.spec.keep).then(|| Blank::begin(blueprint.spec.resources.disk_mb));
        Ok(Self { tenure, blank: blank.transpose()?, blueprint, backend: record.backend })
    }

    /// Its identifier.
    #[must_use]
    pub fn id(&self) -> SandboxId {
        self.tenure.id()
    }

    /// What it is made from.
    #[must_use]
    pub fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// Its owner's lock, for a process that is to own it.
    ///
    /// # Errors
    /// When there are no more file descriptors.
    pub fn lock(&self) -> std::io::Result<File> {
        self.tenure.lock()
    }

    /// Leaves it to the process that has its lock now.
    pub fn hand_over(self) {
        self.tenure.hand_over();
    }

    /// Boots it and waits until it takes commands. Dropping the future ends everything that was
    /// begun.
    ///
    /// # Errors
    /// See [`LaunchError`]; a new sandbox leaves nothing behind, one that ran before can be started
    /// again.
    pub async fn start(self, engine: Engine<'_>, timings: &mut Timings) -> Result<Sandbox, LaunchError> {
        let Self { mut tenure, blueprint, backend, blank } = self;
        // The choice may be another one today.
        if backend != engine.vmm.name() {
            tenure.run_by(engine.vmm.name())?;
        }
        let outcome = start(&mut tenure, &blueprint, blank, engine, timings).await;
        match outcome {
            Ok(parts) => Ok(Sandbox::new(parts, blueprint, tenure)),
            Err(error) => {
                tenure.blame(with_causes(&error));
                Err(error)
            }
        }
    }
}

/// A VM that takes commands, and what it needs.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) agent: Agent,
    pub(crate) booted: Booted,
    pub(crate) machine: Machine,
    pub(crate) log: Log,
    /// It has a disk that outlives it.
    pub(crate) durable: bool,
    pub(crate) layers: LayerSet,
    pub(crate) network: Option<Network>,
}

async fn start(
    tenure: &mut Tenure,
    blueprint: &Blueprint,
    blank: Option<Blank>,
    engine: Engine<'_>,
    timings: &mut Timings,
) -> Result<Parts, LaunchError> {
    let spec = &blueprint.spec;
    tenure.advance(Phase::Starting)?;
    timings.mark("state directory");
    let log = Log::open(tenure.directory(), log::OUTPUT).map_err(LaunchError::Log)?;
    let (mut disks, root) = disks(tenure.directory(), &engine.layers, spec, blank)?;
    let mut mounts = Vec::with_capacity(spec.disks.len());
    for attached in disk::attach(&spec.disks, &engine.volumes)? {
        disks.push(attached.disk);
        mounts.push(attached.mount);
    }
    let durable = disks.iter().any(|disk| disk.access == Access::Durable);
    timings.mark("disks");
    let serials: Vec<String> = disks.iter().map(|disk| disk.serial.clone()).collect();
    let console = log.clone();
    let machine = engine.vmm.boot(MachineSpec {
        vcpus: spec.resources.cpus.vcpus(),
        memory_mb: spec.resources.memory_mb,
        pace: if spec.keep { Pace::Marathon } else { Pace::Sprint },
        kernel: engine.kernel.to_owned(),
        initramfs: vmm::initramfs::with_init(GUEST),
        disks,
        nic: engine.policy.as_ref().map(|_| network::nic(spec)),
        directory: tenure.directory().to_owned(),
        console: Some(Box::new(move |bytes| console.append(bytes))),
    });
    let mut machine = machine.await?;
    // Recorded after it was made, the only thing that is: until then it has no number. It cannot
    // outlive us in any case, the kernel kills it with its parent.
    if let Some(start_time) = process::start_time(machine.pid()) {
        tenure.plan(Resource::Process { pid: machine.pid(), start_time })?;
    }
    timings.mark("start VMM");
    let network = match (engine.policy, machine.take_link()) {
        (Some(policy), Some(link)) => Some(Network::start(spec, policy, link, tenure.directory())?),
        _ => None,
    };
    timings.mark("network");
    let entropy = random::<ENTROPY_LEN>().map_err(LaunchError::Entropy)?.to_vec();
    let certificate = network.as_ref().map(Network::certificate).transpose()?.flatten();
    let config = || BootConfig {
        disks: if machine.disks_have_serials() { Vec::new() } else { serials },
        network: network.as_ref().map(|_| network::of_guest(spec)),
        certificate,
        ..boot_config(tenure.id(), spec, root, mounts, entropy)
    };
    let booted = tokio::select! {
        booted = boot::converse(machine.channel(), config, timings) => booted,
        exit = machine.exited() => return Err(LaunchError::Exited(exit)),
    };
    let booted = match booted {
        // The guest's own words say more than how its VM ended.
        Err(error @ (BootError::Guest { .. } | BootError::Timeout { .. } | BootError::Version(_))) => {
            return Err(error.into());
        }
        Err(error) => return Err(exit_or(&machine, error).await),
        Ok(booted) => booted,
    };
    tenure.advance(Phase::Running)?;
    let agent = Agent::new(machine.channel().clone());
    Ok(Parts { agent, booted, machine, log, durable, layers: engine.layers, network })
}

/// How long the news of a VM's end may come behind the end of its channel.
pub(crate) const EXIT_DELAY: Duration = Duration::from_secs(1);

/// How the VM ended, if it has, else `error`.
pub(crate) async fn exit_or(machine: &Machine, error: impl Into<LaunchError>) -> LaunchError {
    match tokio::time::timeout(EXIT_DELAY, machine.exited()).await {
        Ok(exit) => LaunchError::Exited(exit),
        Err(_) => error.into(),
    }
}

/// The disks of a VM, and how its guest puts them together.
fn disks(
    directory: &Path,
    layers: &LayerSet,
    spec: &SandboxSpec,
    blank: Option<Blank>,
) -> Result<(Vec<Disk>, Root), LaunchError> {
    let mut disks = Vec::new();
    for (number, layer) in layers.disks().iter().enumerate() {
        let file = layer.file().try_clone().map_err(LaunchError::Layer)?;
        disks.push(Disk { serial: format!("layer{number}"), file, access: Access::ReadOnly });
    }
    let serials = disks.iter().map(|disk| disk.serial.clone()).collect();
    let root = Root { layers: serials, scratch: SCRATCH.to_owned(), durable: spec.keep };
    let (file, access) = match blank {
        Some(blank) => (scratch::create(directory, blank)?, Access::Scratch),
        None => (scratch::open_named(&directory.join(SCRATCH_FILE))?, Access::Durable),
    };
    disks.push(Disk { serial: SCRATCH.to_owned(), file, access });
    Ok((disks, root))
}

fn boot_config(
    id: SandboxId,
    spec: &SandboxSpec,
    root: Root,
    mounts: Vec<Mount>,
    entropy: Vec<u8>,
) -> BootConfig {
    let hosts =
        spec.add_hosts.iter().map(|(address, name)| HostEntry { address: *address, name: name.clone() });
    let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    BootConfig {
        hostname: spec.hostname.clone().unwrap_or_else(|| id.to_string()),
        hosts: hosts.collect(),
        dns_servers: spec.shown_dns_servers().to_vec(),
        clock_unix_ns: u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX),
        entropy,
        disks: Vec::new(),
        root,
        mounts,
        cpu_quota_millis: spec.resources.cpus.quota_millis(),
        network: None,
        certificate: None,
    }
}
