//! The way from the kernel's first process to a sandbox that takes commands.
//!
//! What is the same for every sandbox comes before [`Hello`], so that a VM waiting for its
//! configuration can be a template.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use proto::boot::{BootConfig, Control, Hello, Progress, Stage};
use proto::{Port, VERSION};
use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;

use self::disks::Devices;
use self::extra::ExtraError;
use crate::agent::Agent;
use crate::ending;
use crate::forward;
use crate::port::{self, PortError};
use crate::spawner::{self, SpawnerError};
use crate::transport::{Channel, Stream, StreamError};

pub(crate) mod beneath;
mod cgroups;
mod disks;
mod extra;
mod filesystem;
mod names;
mod network;
mod reserve;
mod root;
mod system;
mod trust;

pub(crate) use cgroups::COMMANDS;
pub(crate) use filesystem::{attach, create, duplicate};
pub(crate) use root::{CONFINED_ROOT, PRIVILEGED_ROOT};
pub(crate) use system::NULL;

/// The sandbox cannot be booted.
#[derive(Debug, Error)]
pub(crate) enum BootError {
    /// A system call failed.
    #[error("cannot {what}")]
    Step {
        /// What it was to achieve.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A disk of the configuration is not attached.
    #[error("no disk has the serial number {serial:?}")]
    NoDisk {
        /// The serial number.
        serial: String,
    },
    /// The configuration names no layers.
    #[error("the root file system has no layers")]
    NoLayers,
    /// A disk of the user's.
    #[error(transparent)]
    Extra(#[from] ExtraError),
    /// No way to the host.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No process to start commands from.
    #[error(transparent)]
    Spawner(#[from] SpawnerError),
    /// The conversation with the host broke off.
    #[error("the conversation with the host broke off")]
    Stream(#[from] StreamError),
}

impl BootError {
    /// The failure of one step: "cannot `what`".
    pub(crate) fn step(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Step { what: what.into(), source: source.into() }
    }
}

/// How long the host has to read why booting failed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Boots and serves until the host has the VM powered off. Must be called in process 1 while that
/// has one thread.
pub(crate) fn run() -> Result<Infallible, BootError> {
    system::mount_own_file_systems()?;
    system::make_null()?;
    system::expedite()?;
    cgroups::create()?;
    system::guard_process()?;
    let spawner = spawner::start()?;
    ending::power_off_on_panic();

    let port = port::open()?;
    let channel = Channel::start(port, |end| ending::fail(&end));
    let channel = channel.map_err(|error| BootError::step("start the channel's thread", error))?;
    let stream = channel.connect(Port::Boot)?;
    stream.send(&Hello { version: VERSION, uptime_us: uptime_us() })?;
    let config: BootConfig = stream.receive()?;

    match set_up(&stream, &config) {
        Ok(terminals) => {
            let failed = |error| BootError::step("start the agent", error);
            let agent = Agent::new(spawner, terminals).map_err(failed)?;
            agent.serve(channel.listen(Port::Exec)).map_err(failed)?;
            forward::serve(&channel).map_err(|error| BootError::step("start the forwarder", error))?;
            stream.send(&Progress::Ready { uptime_us: uptime_us() })?;
            obey(&stream, &agent)
        }
        Err(error) => {
            // The host ends the VM when it hears of it; disks that are mounted already outlive that.
            root::unmount();
            stream.send(&Progress::Failed { message: ending::with_causes(&error) })?;
            thread::sleep(LAST_WORDS);
            Err(error)
        }
    }
}

/// Makes this VM the sandbox of `config`; gives the file system of its terminals.
fn set_up(stream: &Stream, config: &BootConfig) -> Result<std::os::fd::OwnedFd, BootError> {
    let reached = |stage| stream.send(&Progress::Reached { stage, uptime_us: uptime_us() });
    // Before anything can ask for a random number or the time.
    system::set_entropy_and_clock(config)?;
    reached(Stage::Configured)?;
    let devices = Devices::new(&config.disks);
    let disks = disks::mount(devices, &config.root)?;
    let extra = extra::mount(devices, &config.mounts)?;
    reached(Stage::DisksMounted)?;
    let full = |error| BootError::step("manage the reserve on the scratch disk", error);
    if config.root.durable {
        reserve::release(&disks.scratch).map_err(full)?;
    }
    let root = root::Overlay::mount(&disks, config.root.durable)?;
    names::write(&root, config)?;
    trust::write(&root, config);
    if config.root.durable {
        reserve::hold(&disks.scratch).map_err(full)?;
    }
    let terminals = root.assemble(extra)?;
    reached(Stage::RootMounted)?;
    system::set(config)?;
    network::set_up(config.network.as_ref())?;
    cgroups::limit_cpu(config.cpu_quota_millis)?;
    reached(Stage::SystemSet)?;
    Ok(terminals)
}

/// Does what the host says until it says to power off. If it goes away instead, nobody needs the
/// VM any more; the channel ends the VM in that case.
fn obey(stream: &Stream, agent: &Arc<Agent>) -> ! {
    match stream.receive() {
        Ok(Control::PowerOff { grace_ms }) => {
            agent.end_all(Duration::from_millis(grace_ms));
            root::unmount();
            ending::power_off()
        }
        Err(error) => ending::fail(&error),
    }
}

/// Microseconds since the kernel started.
fn uptime_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1000
}
