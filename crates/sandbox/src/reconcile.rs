//! From what the database says to what is: who lives, and the end of those whose owner does not.

use std::fs;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use api::lifecycle::{Phase, Resource};
use api::{Explain, Kind, SandboxId, Status};
use thiserror::Error;

use crate::home::{HomeError, Ownership};
use crate::launch::Site;
use crate::rebuild;
use crate::state::{Record, StateError};
use crate::tenure::{Tenure, TenureError};

/// Why a sandbox ended that had no chance to say so itself.
const ABANDONED: &str = "the process that owned it is gone";

/// How long tidying up may take, and between looks whether it has ended.
const TIDYING: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// A sandbox could not be put in order.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// It has a living owner.
    #[error("sandbox {id} is running")]
    Running {
        /// Which.
        id: SandboxId,
    },
    /// Something of it could not be released.
    #[error("sandbox {id} could not be removed altogether")]
    LeftBehind {
        /// Which.
        id: SandboxId,
    },
    /// Its directory or its record.
    #[error(transparent)]
    Tenure(#[from] TenureError),
}

impl From<StateError> for ReconcileError {
    fn from(error: StateError) -> Self {
        Self::Tenure(error.into())
    }
}

impl From<HomeError> for ReconcileError {
    fn from(error: HomeError) -> Self {
        Self::Tenure(error.into())
    }
}

impl Explain for ReconcileError {
    fn kind(&self) -> Kind {
        match self {
            Self::Running { .. } => Kind::Conflict,
            Self::LeftBehind { .. } => Kind::HostUnready,
            Self::Tenure(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Running { id } => Some(format!("end it first: matchlock kill {id}")),
            Self::LeftBehind { id } => Some(format!("matchlock inspect {id} says why")),
            Self::Tenure(error) => error.hint(),
        }
    }
}

fn status(phase: Phase, owned: bool) -> Status {
    match (phase, owned) {
        // Between the phases of its own work it may be in any other.
        (Phase::Creating | Phase::Created | Phase::Starting | Phase::Stopped | Phase::StartFailed, true) => {
            Status::Starting
        }
        (Phase::Running, true) => Status::Running,
        (_, true) => Status::Stopping,
        (Phase::Stopped, false) => Status::Stopped,
        (phase, false) if phase.is_failure() => Status::Failed,
        (_, false) => Status::Crashed,
    }
}

/// Whether a sandbox in this phase that has an owner has it only for a moment.
fn at_rest(phase: Phase) -> bool {
    matches!(phase, Phase::Stopped | Phase::Cleaning | Phase::Cleaned) || phase.is_failure()
}

/// What a look at one sandbox came to.
#[derive(Debug)]
pub enum Outcome {
    /// It has a living owner, and was left alone.
    Running,
    /// These things of it were released.
    Cleaned(Vec<Resource>),
}

impl Site {
    /// How a sandbox is, by its record and by whether its owner lives.
    #[must_use]
    pub fn status(&self, record: &Record) -> Status {
        status(record.phase, self.home.is_owned(record.id))
    }

    /// Releases what a sandbox without a living owner must not have any more. One that is kept, and
    /// ran, is stopped then; any other is gone.
    ///
    /// # Errors
    /// When it cannot be told how it is.
    pub fn reconcile(&self, id: SandboxId) -> Result<Outcome, ReconcileError> {
        self.end_abandoned(id, false)
    }

    /// Removes a sandbox that does not run.
    ///
    /// # Errors
    /// When it runs, or something of it cannot be released.
    pub fn remove(&self, id: SandboxId) -> Result<(), ReconcileError> {
        match self.end_abandoned(id, true)? {
            Outcome::Running => Err(ReconcileError::Running { id }),
            Outcome::Cleaned(_) => match self.state.record(id) {
                Ok(_) => Err(ReconcileError::LeftBehind { id }),
                Err(error) if error.kind() == Kind::NotFound => Ok(()),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Ends what is left of sandboxes that nobody wants back: those that are not kept and whose
    /// owner is gone. What cannot be released, or looked at, is left for the next time.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn sweep(&self) -> Result<(), ReconcileError> {
        for record in self.state.list()? {
            if record.keep {
                continue;
            }
            match self.reconcile(record.id) {
                // Its owner was faster.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => tracing::warn!(id = %record.id, %error, "cannot tidy up after a sandbox"),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Removes directories of sandboxes that are not on record, and says whose they were. One that is to be
    /// kept is: its record is what was lost.
    ///
    /// # Errors
    /// When they cannot be listed or removed.
    pub fn remove_unknown(&self) -> Result<Vec<SandboxId>, ReconcileError> {
        let mut removed = Vec::new();
        for id in self.home.directories()? {
            // Owners enter a sandbox, and make its directory, while they hold the home's lock.
            let record = self.home.lock().map(|_guard| self.state.record(id))?;
            match record {
                Ok(_) => continue,
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            if matches!(self.home.take(id)?, Ownership::Owned) {
                continue;
            }
            let path = self.home.directory(id);
            if rebuild::is_to_be_kept(id, &path) {
                tracing::warn!(%id, "is kept, but not on record: enter it with `matchlock gc --rebuild-state`");
                continue;
            }
            match fs::remove_dir_all(&path) {
                Ok(()) => removed.push(id),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(crate::home::failed("remove", &path)(error).into()),
            }
        }
        Ok(removed)
    }

    /// Becomes the owner of a sandbox that has none. Whoever tidies up after it has its lock for a
    /// moment, too, and is waited for.
    ///
    /// # Errors
    /// When it cannot be told whether it has an owner.
    pub fn take(&self, id: SandboxId) -> Result<Ownership, ReconcileError> {
        let deadline = Instant::now() + TIDYING;
        loop {
            let ownership = self.home.take(id)?;
            let is_passing = match ownership {
                Ownership::Taken(_) => return Ok(ownership),
                Ownership::Owned => at_rest,
                // Its record goes right behind its directory.
                Ownership::Missing => |phase| matches!(phase, Phase::Cleaning | Phase::Cleaned),
            };
            let waits = self.state.record(id).is_ok_and(|record| is_passing(record.phase));
            if !waits || Instant::now() > deadline {
                return Ok(ownership);
            }
            sleep(POLL);
        }
    }

    fn end_abandoned(&self, id: SandboxId, remove: bool) -> Result<Outcome, ReconcileError> {
        let (lock, lost) = match self.take(id)? {
            Ownership::Owned => return Ok(Outcome::Running),
            Ownership::Taken(lock) => (Some(lock), false),
            Ownership::Missing => (None, true),
        };
        let mut tenure = Tenure::resume(&self.home, &self.state, id, lock)?;
        if remove || lost {
            tenure.remove();
        }
        if tenure.was_running() {
            tenure.blame(ABANDONED);
        }
        Ok(Outcome::Cleaned(tenure.finish()))
    }
}
