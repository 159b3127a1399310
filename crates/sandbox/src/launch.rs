//! The launch recipe, and the sandbox that comes of it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use api::image::ImageConfig;
use api::spec::{CommandSpec, SandboxSpec};
use api::{Explain, Kind, SandboxId};
use image::store::LayerSet;
use proto::agent::Stdio;
use proto::boot::{BootConfig, HostEntry, Root};
use thiserror::Error;
use vmm::qemu::{Qemu, QemuError};
use vmm::{Disk, Exit, Machine, MachineSpec};

use crate::agent::{Agent, AgentError, Running};
use crate::boot::{self, BootError, Booted};
use crate::command::{self, CommandError};
use crate::home::{Home, HomeError, SandboxDir};
use crate::random::random;
use crate::scratch::{self, ScratchError};
use crate::timings::Timings;

/// The guest's `/init`, built by this crate's build script.
pub(crate) static GUEST: &[u8] = include_bytes!(env!("MATCHLOCK_GUEST"));

/// Serial of the scratch disk; layers are `layer0`, `layer1`, … from the lowest up.
const SCRATCH: &str = "scratch";

/// Fresh random bytes that a guest starts with.
const ENTROPY_LEN: usize = 64;

/// How long a guest that was asked to power off may take beyond its grace period.
const POWER_OFF_MARGIN: Duration = Duration::from_secs(5);

/// A sandbox could not be made, or came to an untimely end.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// Its directory.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Its scratch disk.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// A layer's file could not be handed on.
    #[error("cannot hand an image layer to the VM")]
    Layer(#[source] std::io::Error),
    /// No randomness for the guest.
    #[error("cannot get random bytes from the host's kernel")]
    Entropy(#[source] std::io::Error),
    /// The VMM.
    #[error(transparent)]
    Vmm(#[from] QemuError),
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
}

impl Explain for LaunchError {
    fn kind(&self) -> Kind {
        match self {
            Self::Home(error) => error.kind(),
            Self::Scratch(error) => error.kind(),
            Self::Layer(error) | Self::Entropy(error) => api::error::io_kind(error),
            Self::Vmm(error) => error.kind(),
            Self::Boot(error) => error.kind(),
            Self::Exited(_) => Kind::Vm,
            Self::Command(error) => error.kind(),
            Self::Agent(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::Scratch(error) => error.hint(),
            Self::Vmm(error) => error.hint(),
            Self::Boot(error) => error.hint(),
            Self::Command(error) => error.hint(),
            Self::Agent(error) => error.hint(),
            Self::Exited(_) => Some("give the VM more --memory if the console above speaks of it".into()),
            Self::Layer(_) | Self::Entropy(_) => None,
        }
    }
}

/// A running VM that takes commands. It ends when this is dropped.
#[derive(Debug)]
pub struct Sandbox {
    // Dropped in this order: first the VM, then what it used.
    agent: Agent,
    booted: Booted,
    machine: Machine,
    dir: SandboxDir,
    _layers: LayerSet,
}

impl Sandbox {
    /// Boots a VM of these layers and waits until it takes commands. Dropping the future ends
    /// everything that was begun.
    ///
    /// # Errors
    /// See [`LaunchError`]; nothing is left behind.
    pub async fn launch(
        home: &Home,
        vmm: &Qemu,
        kernel: &Path,
        layers: LayerSet,
        spec: &SandboxSpec,
        timings: &mut Timings,
    ) -> Result<Self, LaunchError> {
        home.sweep()?;
        let dir = home.claim()?;
        timings.mark("state directory");
        let (disks, root) = disks(&dir, &layers, spec.resources.disk_mb)?;
        timings.mark("disks");
        let machine = vmm.boot(MachineSpec {
            vcpus: spec.resources.cpus.vcpus(),
            memory_mb: spec.resources.memory_mb,
            kernel: kernel.to_owned(),
            initramfs: vmm::initramfs::with_init(GUEST),
            disks,
            console_log: Some(dir.path().join("console.log")),
        });
        let machine = machine.await?;
        timings.mark("start VMM");
        let entropy = random::<ENTROPY_LEN>().map_err(LaunchError::Entropy)?.to_vec();
        let config = || boot_config(dir.id(), spec, root, entropy);
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
        let agent = Agent::new(machine.channel().clone());
        Ok(Self { agent, booted, machine, dir, _layers: layers })
    }

    /// Its identifier.
    #[must_use]
    pub fn id(&self) -> SandboxId {
        self.dir.id()
    }

    /// Starts a command, as the image's configuration and `spec` together say.
    ///
    /// # Errors
    /// When there is nothing to run, or the VM is gone.
    pub async fn exec(
        &self,
        image: &ImageConfig,
        spec: &CommandSpec,
        stdio: Stdio,
    ) -> Result<Running, LaunchError> {
        Ok(self.agent.exec(command::resolve(image, spec, stdio)?).await?)
    }

    /// The reason behind an error of a running command: if the VM has ended, that and its last
    /// words, else the error itself.
    pub async fn explain(&self, error: AgentError) -> LaunchError {
        exit_or(&self.machine, error).await
    }

    /// Ends it: at once, or after the guest has ended its commands and synced its disk.
    pub async fn end(mut self, grace: Option<Duration>) {
        if let Some(grace) = grace
            && self.booted.power_off(grace).await.is_ok()
        {
            let gone = tokio::time::timeout(grace + POWER_OFF_MARGIN, self.machine.exited()).await;
            if gone.is_err() {
                tracing::warn!(id = %self.id(), "the guest did not power off in time");
            }
        }
        self.machine.kill().await;
    }
}

/// How long the news of a VM's end may come behind the end of its channel.
const EXIT_DELAY: Duration = Duration::from_secs(1);

/// How the VM ended, if it has, else `error`.
async fn exit_or(machine: &Machine, error: impl Into<LaunchError>) -> LaunchError {
    match tokio::time::timeout(EXIT_DELAY, machine.exited()).await {
        Ok(exit) => LaunchError::Exited(exit),
        Err(_) => error.into(),
    }
}

/// The disks of a VM, and how its guest puts them together.
fn disks(dir: &SandboxDir, layers: &LayerSet, scratch_mb: u64) -> Result<(Vec<Disk>, Root), LaunchError> {
    let mut disks = Vec::new();
    for (number, layer) in layers.disks().iter().enumerate() {
        let file = layer.file().try_clone().map_err(LaunchError::Layer)?;
        disks.push(Disk { serial: format!("layer{number}"), file, read_only: true });
    }
    let root =
        Root { layers: disks.iter().map(|disk| disk.serial.clone()).collect(), scratch: SCRATCH.to_owned() };
    let epoch = i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX);
    let file = scratch::create(dir.path(), scratch_mb, random().map_err(LaunchError::Entropy)?, epoch)?;
    disks.push(Disk { serial: SCRATCH.to_owned(), file, read_only: false });
    Ok((disks, root))
}

fn boot_config(id: SandboxId, spec: &SandboxSpec, root: Root, entropy: Vec<u8>) -> BootConfig {
    let hosts =
        spec.add_hosts.iter().map(|(address, name)| HostEntry { address: *address, name: name.clone() });
    BootConfig {
        hostname: spec.hostname.clone().unwrap_or_else(|| id.to_string()),
        hosts: hosts.collect(),
        dns_servers: spec.dns_servers.clone(),
        clock_unix_ns: u64::try_from(since_epoch().as_nanos()).unwrap_or(u64::MAX),
        entropy,
        root,
        cpu_quota_millis: spec.resources.cpus.quota_millis(),
    }
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
