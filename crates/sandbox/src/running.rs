//! A sandbox that runs, as its owner has it: commands, log, and its end.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::SandboxId;
use api::lifecycle::Resource;
use api::rpc::{AllowListAddResult, AllowListDeleteResult};
use api::spec::{CommandSpec, SandboxSpec};
use image::store::LayerSet;
use proto::agent::Stdio;
use vmm::{Exit, Machine};

use crate::agent::{Agent, AgentError, Running};
use crate::boot::Booted;
use crate::command::{self, CommandError};
use crate::launch::{Blueprint, LaunchError, Parts, exit_or};
use crate::log::Log;
use crate::network::{AllowListError, Network};
use crate::publish::{Ports, Publisher};
use crate::tenure::{Tenure, TenureError};

/// How long a guest that was asked to power off may take beyond its grace period.
const POWER_OFF_MARGIN: Duration = Duration::from_secs(5);

/// The same for one that has written to disks that outlive it: all of its memory may have to go to a
/// slow disk of the host's.
pub const UNMOUNT_MARGIN: Duration = Duration::from_secs(60);

/// Why a sandbox ends, for its record.
#[derive(Debug, Clone, Copy)]
pub enum Why<'a> {
    /// As somebody wanted.
    Asked(&'a str),
    /// Something went wrong.
    Failed(&'a str),
}

/// A running VM that takes commands. It ends when this is dropped.
#[derive(Debug)]
pub struct Sandbox {
    // Dropped in this order: first the VM, then what it used and the record of it.
    agent: Agent,
    ports: Ports,
    booted: tokio::sync::Mutex<Booted>,
    machine: Machine,
    network: Option<Network>,
    log: Log,
    durable: bool,
    blueprint: Blueprint,
    started: Instant,
    id: SandboxId,
    directory: PathBuf,
    /// Nothing once it ends.
    holding: Mutex<Option<Holding>>,
}

/// What others may wait for, in the order in which they get it: whoever finds the sandbox ended must not
/// find its layers in use.
#[derive(Debug)]
struct Holding {
    _layers: LayerSet,
    tenure: Tenure,
}

impl Sandbox {
    pub(crate) fn new(parts: Parts, blueprint: Blueprint, tenure: Tenure) -> Self {
        let Parts { agent, booted, machine, log, durable, layers, network } = parts;
        Self {
            ports: Ports::new(agent.clone()),
            agent,
            booted: tokio::sync::Mutex::new(booted),
            machine,
            network,
            log,
            durable,
            blueprint,
            started: Instant::now(),
            id: tenure.id(),
            directory: tenure.directory().to_owned(),
            holding: Mutex::new(Some(Holding { _layers: layers, tenure })),
        }
    }

    /// Its identifier.
    #[must_use]
    pub fn id(&self) -> SandboxId {
        self.id
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What it was asked to be.
    #[must_use]
    pub fn spec(&self) -> &SandboxSpec {
        &self.blueprint.spec
    }

    /// How long it takes commands by now.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Publishes ports of it for as long as it runs.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        self.ports.publisher()
    }

    /// Starts the command that the sandbox was made for, as the image's configuration and its
    /// specification together say. What it writes is logged.
    ///
    /// `None` if there is none: a sandbox that is kept can do without.
    ///
    /// # Errors
    /// When the VM is gone.
    pub async fn run(&self, stdio: Stdio) -> Result<Option<Running>, LaunchError> {
        let exec = match self.blueprint.resolve(stdio) {
            Err(CommandError::Nothing) => return Ok(None),
            exec => exec?,
        };
        Ok(Some(self.agent.exec(exec).await?.logged(self.log.clone())))
    }

    /// Starts another command, which inherits what the first was given. What it writes is logged
    /// unless it is a terminal's.
    ///
    /// # Errors
    /// When there is nothing to run, or the VM is gone.
    pub async fn exec(&self, command: &CommandSpec, stdio: Stdio) -> Result<Running, LaunchError> {
        let first = &self.blueprint.spec.command;
        let exec = command::inherit(&self.blueprint.inherited(), first, command, stdio)?;
        let running = self.agent.exec(exec).await?;
        Ok(match stdio {
            Stdio::Pipes { .. } => running.logged(self.log.clone()),
            Stdio::Terminal { .. } => running,
        })
    }

    /// Allows hosts, for new connections and requests.
    ///
    /// # Errors
    /// See [`AllowListError`]; nothing has changed then.
    pub fn allow(&self, hosts: &[String]) -> Result<AllowListAddResult, AllowListError> {
        self.network.as_ref().ok_or(AllowListError::NoNetwork)?.allow(hosts)
    }

    /// Takes hosts back. What is open to them ends.
    ///
    /// # Errors
    /// See [`AllowListError`]; nothing has changed then.
    pub fn disallow(&self, hosts: &[String]) -> Result<AllowListDeleteResult, AllowListError> {
        self.network.as_ref().ok_or(AllowListError::NoNetwork)?.disallow(hosts)
    }

    /// The reason behind an error of a running command: if the VM has ended, that and its last
    /// words, else the error itself.
    pub async fn explain(&self, error: AgentError) -> LaunchError {
        exit_or(&self.machine, error).await
    }

    /// Resolves when the VM has ended by itself.
    pub async fn exited(&self) -> Exit {
        self.machine.exited().await
    }

    /// Records that something is about to be made, which goes when the sandbox ends.
    ///
    /// # Errors
    /// When the database is not writable.
    pub fn plan(&self, resource: Resource) -> Result<(), TenureError> {
        match self.holding().as_mut() {
            Some(holding) => holding.tenure.plan(resource),
            // It is ending: whoever makes something now would make it for nobody.
            None => Ok(()),
        }
    }

    /// Records how its command ended.
    pub fn record_exit(&self, code: u8) {
        if let Some(holding) = self.holding().as_mut() {
            holding.tenure.record_exit(code);
        }
    }

    /// Removes it altogether when it ends, unless it is one that was started again.
    pub fn discard_if_new(&self) {
        if let Some(holding) = self.holding().as_mut() {
            holding.tenure.remove_if_new();
        }
    }

    /// Ends it: at once, or after the guest has had `grace` to end its commands and has unmounted its
    /// disks, unless `impatience` resolves before it has. If disks outlive it, what was written is expected to be
    /// there: then they are unmounted in any case. Whoever calls this a second time waits for nothing.
    pub async fn end(&self, grace: Option<Duration>, why: Why<'_>, impatience: impl Future<Output = ()>) {
        let Some(mut holding) = self.holding().take() else { return };
        let tenure = &mut holding.tenure;
        match why {
            Why::Asked(reason) => tenure.because(reason),
            Why::Failed(error) => tenure.blame(error),
        }
        tenure.begin_to_end();
        let margin = match grace {
            Some(_) if self.durable => UNMOUNT_MARGIN,
            _ => POWER_OFF_MARGIN,
        };
        if let Some(grace) = grace.or(self.durable.then_some(Duration::ZERO)) {
            tokio::select! {
                () = self.power_off(grace, margin) => {}
                () = impatience => tracing::debug!("nobody waits for the guest"),
            }
        }
        // The kernel takes its time for the end of either, so both end at the same time.
        if let Some(network) = &self.network {
            network.stop();
        }
        self.machine.kill().await;
        // Whoever waits for the end may start it again at once, with the same ports.
        self.ports.close().await;
        drop(holding);
    }

    /// Asks the guest to power off, and waits until it has, or has had its time.
    async fn power_off(&self, grace: Duration, margin: Duration) {
        let powered_off = async {
            // A guest that hangs does not even take the question.
            if self.booted.lock().await.power_off(grace).await.is_ok() {
                self.machine.exited().await;
            }
        };
        if tokio::time::timeout(grace + margin, powered_off).await.is_err() {
            tracing::warn!(id = %self.id(), "the guest did not power off in time");
        }
    }

    fn holding(&self) -> MutexGuard<'_, Option<Holding>> {
        self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
