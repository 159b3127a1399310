//! Ending a sandbox from another process: its owner is asked, and if it does not hear or does not
//! do it, killed. Then what it left is released.

use std::time::Duration;

use api::{Explain, Kind, SandboxId};
use sandbox::process::{self, Signal};
use sandbox::reconcile::ReconcileError;
use sandbox::tenure::TenureError;
use sandbox::{SOCKET, Site, UNMOUNT_MARGIN};
use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::client::Client;

/// How long an owner may take to do what it was asked, beyond the guest's grace period.
const MARGIN: Duration = Duration::from_secs(10);

/// Between looks whether the owner is gone.
const POLL: Duration = Duration::from_millis(10);

/// A sandbox could not be ended.
#[derive(Debug, Error)]
pub enum EndError {
    /// It has no owner that could be ended.
    #[error("sandbox {id} is not running")]
    NotRunning {
        /// Which.
        id: SandboxId,
    },
    /// Its owner is still there.
    #[error("the owner of sandbox {id} (process {pid}) does not end")]
    Stubborn {
        /// Which.
        id: SandboxId,
        /// The owner.
        pid: u32,
    },
    /// What it left could not be released.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
}

impl Explain for EndError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotRunning { .. } => Kind::Conflict,
            Self::Stubborn { .. } => Kind::Timeout,
            Self::Reconcile(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotRunning { id } => {
                Some(format!("remove it with `matchlock rm {id}`, or start it with `matchlock start {id}`"))
            }
            Self::Stubborn { pid, .. } => Some(format!("look what process {pid} waits for")),
            Self::Reconcile(error) => error.hint(),
        }
    }
}

/// Ends a sandbox, after its guest has had `grace` to end what runs in it, or at once.
///
/// # Errors
/// When it does not run, or something of it remains.
pub async fn end(site: &Site, id: SandboxId, grace: Option<Duration>) -> Result<(), EndError> {
    if !site.home.is_owned(id) {
        return Err(EndError::NotRunning { id });
    }
    let patience = grace.map_or(MARGIN, |grace| grace + UNMOUNT_MARGIN + MARGIN);
    if !(ask(site, id, grace, patience).await && is_gone(site, id, || Ok(())).await?) {
        force(site, id).await?;
    }
    match site.reconcile(id) {
        // It was not kept, and has removed itself.
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        outcome => outcome.map(drop).map_err(EndError::from),
    }
}

/// Asks the owner; whether it has understood.
async fn ask(site: &Site, id: SandboxId, grace: Option<Duration>, patience: Duration) -> bool {
    let asked = async {
        let client = Client::connect(&site.home.directory(id), SOCKET).await.ok()?;
        client.close(grace).await.ok()
    };
    matches!(tokio::time::timeout(patience, asked).await, Ok(Some(())))
}

/// Waits for the owner's end; `meanwhile` is called again and again.
async fn is_gone(
    site: &Site,
    id: SandboxId,
    mut meanwhile: impl FnMut() -> Result<(), EndError>,
) -> Result<bool, EndError> {
    let deadline = Instant::now() + MARGIN;
    while site.home.is_owned(id) {
        meanwhile()?;
        if Instant::now() > deadline {
            return Ok(false);
        }
        sleep(POLL).await;
    }
    Ok(true)
}

/// Tells the owner by signals, the last of which it cannot ignore.
async fn force(site: &Site, id: SandboxId) -> Result<(), EndError> {
    let mut owner = 0;
    for signal in [Signal::TERM, Signal::KILL] {
        let mut told = None;
        let tell = || {
            // Whoever makes a sandbox may be just handing it over to the process that is to own it: until
            // that says so, the number on record is of a process that has its lock no more.
            owner = recorded_owner(site, id)?.unwrap_or(owner);
            if told != Some(owner) && process::signal(owner, signal, || site.home.is_owned_by(id, owner)) {
                told = Some(owner);
            }
            Ok(())
        };
        if is_gone(site, id, tell).await? {
            return Ok(());
        }
    }
    Err(EndError::Stubborn { id, pid: owner })
}

/// The process that says that it owns a sandbox; none if the sandbox is gone.
fn recorded_owner(site: &Site, id: SandboxId) -> Result<Option<u32>, EndError> {
    match site.state.record(id) {
        Ok(record) => Ok(record.owner_pid),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(ReconcileError::from(TenureError::from(error)).into()),
    }
}
