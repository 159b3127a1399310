//! Ending a sandbox from another process: its owner is asked, and if it does not hear or does not
//! do it, killed. Then what it left is released.

use std::time::Duration;

use api::lifecycle::Phase;
use api::{Explain, Kind, SandboxId};
use sandbox::process::{self, Signal};
use sandbox::reconcile::ReconcileError;
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
    let life = Life::present(site, id)?;
    let patience = grace.map_or(MARGIN, |grace| grace + UNMOUNT_MARGIN + MARGIN);
    let begun = Instant::now();
    if !(life.ask(grace, patience).await && life.is_over(MARGIN, || Ok(())).await?) {
        life.force(patience.saturating_sub(begun.elapsed()).max(MARGIN)).await?;
    }
    match site.reconcile(id) {
        // It was not kept, and has removed itself.
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        outcome => outcome.map(drop).map_err(EndError::from),
    }
}

/// A sandbox from one start to its next end.
struct Life<'a> {
    site: &'a Site,
    id: SandboxId,
    /// The last that had happened to it when this was made.
    last: i64,
}

impl<'a> Life<'a> {
    fn present(site: &'a Site, id: SandboxId) -> Result<Self, EndError> {
        let last = match site.state.history(id) {
            Ok(history) => history.last().map_or(0, |entry| entry.seq),
            Err(error) if error.kind() == Kind::NotFound => return Err(EndError::NotRunning { id }),
            Err(error) => return Err(ReconcileError::from(error).into()),
        };
        Ok(Self { site, id, last })
    }

    /// Asks the owner; whether it has understood.
    async fn ask(&self, grace: Option<Duration>, patience: Duration) -> bool {
        let asked = async {
            let client = Client::connect(&self.site.home.directory(self.id), SOCKET).await.ok()?;
            client.close(grace).await.ok()
        };
        matches!(tokio::time::timeout(patience, asked).await, Ok(Some(())))
    }

    /// Waits until it has ended, even if somebody has started it again since; `meanwhile` is called again and
    /// again.
    async fn is_over(
        &self,
        patience: Duration,
        mut meanwhile: impl FnMut() -> Result<(), EndError>,
    ) -> Result<bool, EndError> {
        let deadline = Instant::now() + patience;
        while self.site.home.is_owned(self.id) && !self.has_stopped() {
            meanwhile()?;
            if Instant::now() > deadline {
                return Ok(false);
            }
            sleep(POLL).await;
        }
        Ok(true)
    }

    /// Whether it has come to rest by its record, which says so before its owner lets go of it. Whoever is its
    /// owner then is another one, or will be gone when it is tidied up after it.
    fn has_stopped(&self) -> bool {
        // One that cannot be read is judged by its owner alone.
        self.site.state.history(self.id).is_ok_and(|history| {
            history.iter().any(|entry| entry.seq > self.last && entry.to == Phase::Stopped)
        })
    }

    /// Tells the owner by signals, of which the first leaves it `patience` and the last cannot be ignored.
    async fn force(&self, patience: Duration) -> Result<(), EndError> {
        let mut owner = 0;
        for (signal, patience) in [(Signal::TERM, patience), (Signal::KILL, MARGIN)] {
            let mut told = None;
            let tell = || {
                // Whoever makes a sandbox may be just handing it over to the process that is to own it: until
                // that says so, the number on record is of a process that has its lock no more.
                owner = recorded_owner(self.site, self.id)?.unwrap_or(owner);
                let is_owner = || self.site.home.is_owned_by(self.id, owner);
                if told != Some(owner) && process::signal(owner, signal, is_owner) {
                    told = Some(owner);
                }
                Ok(())
            };
            if self.is_over(patience, tell).await? {
                return Ok(());
            }
        }
        Err(EndError::Stubborn { id: self.id, pid: owner })
    }
}

/// The process that says that it owns a sandbox; none if the sandbox is gone.
fn recorded_owner(site: &Site, id: SandboxId) -> Result<Option<u32>, EndError> {
    match site.state.record(id) {
        Ok(record) => Ok(record.owner_pid),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(ReconcileError::from(error).into()),
    }
}
