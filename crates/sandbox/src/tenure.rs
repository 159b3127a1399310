//! A sandbox as its owner holds it: its phase, and the stack of what it has on the host. Both are
//! in the database, each resource before it is made, so that whoever comes after a crash finds and
//! releases the same things under the same names, by the same code.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::lifecycle::{Phase, Resource};
use api::{Explain, Kind, SandboxId};
use thiserror::Error;

use crate::home::{Home, HomeError};
use crate::identity::Identity;
use crate::process;
use crate::random::random;
use crate::rebuild;
use crate::state::{NewSandbox, ResourceKey, State, StateError};

/// How long a VMM that was killed may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// The right to start, end and remove a sandbox, and the duty to tidy up: dropping it releases
/// what must not outlive its owner, and if the sandbox is not to be kept, everything.
#[derive(Debug)]
pub struct Tenure {
    state: Arc<State>,
    id: SandboxId,
    directory: PathBuf,
    keep: bool,
    phase: Phase,
    /// It was running once; one that never was is of no use to anybody.
    ran: bool,
    /// Under an earlier owner.
    ran_before: bool,
    /// Why it is about to end, for the record.
    reason: Option<String>,
    /// The reason is an error.
    blamed: bool,
    stack: Vec<(ResourceKey, Resource)>,
    /// There is nothing more to do.
    over: bool,
    /// Liveness is this lock; a sandbox without a directory has none.
    lock: Option<File>,
}

impl Tenure {
    /// Enters a new sandbox under a fresh ID, makes its directory and takes its lock.
    ///
    /// # Errors
    /// When the name is taken, or the state directory is not writable.
    pub(crate) fn begin(
        home: &Home,
        state: &Arc<State>,
        describe: impl FnOnce(SandboxId) -> NewSandbox,
    ) -> Result<Self, TenureError> {
        // Until the directory is locked, others would take the sandbox for an abandoned one.
        let _guard = home.lock()?;
        let bits = random().map_err(crate::home::failed("draw an ID for", home.path()))?;
        let id = SandboxId::from_bits(u32::from_ne_bytes(bits));
        let new = describe(id);
        state.insert(&new)?;
        let mut tenure = Self {
            state: Arc::clone(state),
            id,
            directory: home.directory(id),
            keep: new.keep,
            phase: Phase::Creating,
            ran: false,
            ran_before: false,
            reason: None,
            blamed: false,
            stack: Vec::new(),
            over: false,
            lock: None,
        };
        tenure.plan(Resource::Directory { path: tenure.directory.clone() })?;
        tenure.lock = Some(home.make_directory(id)?);
        rebuild::save(&new, &tenure.directory)
            .map_err(crate::home::failed("describe the sandbox in", &tenure.directory))?;
        Ok(tenure)
    }

    /// Takes over a sandbox that has no living owner, by its lock if it has one.
    ///
    /// # Errors
    /// When its record is gone or cannot be read.
    pub fn resume(
        home: &Home,
        state: &Arc<State>,
        id: SandboxId,
        lock: Option<File>,
    ) -> Result<Self, TenureError> {
        let record = state.record(id)?;
        let directory = home.directory(id);
        let held = state.resources(id)?.into_iter();
        let mut stack: Vec<_> = held.map(|held| (held.key, held.resource)).collect();
        if is_elsewhere(&stack, &directory) {
            for (_, resource) in &mut stack {
                move_to(&directory, resource);
            }
        }
        let ran_before = state.history(id)?.iter().any(|entry| entry.to == Phase::Running);
        Ok(Self {
            state: Arc::clone(state),
            id,
            directory,
            keep: record.keep,
            phase: record.phase,
            ran: ran_before,
            ran_before,
            reason: None,
            blamed: false,
            stack,
            over: false,
            lock,
        })
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> SandboxId {
        self.id
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether its owner has not come to the end of its work.
    pub(crate) fn was_running(&self) -> bool {
        !matches!(self.phase, Phase::Stopped | Phase::Cleaned) && !self.phase.is_failure()
    }

    /// Another handle of the owner's lock.
    pub(crate) fn lock(&self) -> io::Result<File> {
        self.lock.as_ref().ok_or(io::ErrorKind::NotFound)?.try_clone()
    }

    /// It is to be removed altogether when this is dropped, unless it had been running before.
    pub(crate) fn remove_if_new(&mut self) {
        if !self.ran_before {
            self.keep = false;
        }
    }

    /// Records that something is about to be made.
    pub(crate) fn plan(&mut self, resource: Resource) -> Result<(), TenureError> {
        let key = self.state.plan(self.id, &resource)?;
        self.stack.push((key, resource));
        Ok(())
    }

    /// Says that this process owns it now.
    pub(crate) fn own(&self) -> Result<(), TenureError> {
        Ok(self.state.set_owner(self.id, Some(std::process::id()))?)
    }

    /// Records by which VMM it is run from now on.
    pub(crate) fn run_by(&self, backend: &str) -> Result<(), TenureError> {
        Ok(self.state.set_backend(self.id, backend)?)
    }

    /// Moves to another phase.
    pub(crate) fn advance(&mut self, phase: Phase) -> Result<(), TenureError> {
        self.state.advance(self.id, phase, None)?;
        self.phase = phase;
        self.ran |= phase == Phase::Running;
        Ok(())
    }

    /// Says why it is going to end, unless that is known already.
    pub(crate) fn because(&mut self, reason: impl Into<String>) {
        self.reason.get_or_insert_with(|| reason.into());
    }

    /// Says what went wrong, so that it is going to end.
    pub(crate) fn blame(&mut self, error: impl Into<String>) {
        self.because(error);
        self.blamed = true;
    }

    /// Records how its command ended; one that is not kept has nobody to tell.
    pub(crate) fn record_exit(&self, code: u8) {
        if self.keep
            && let Err(error) = self.state.set_exit_code(self.id, code.into())
        {
            tracing::warn!(id = %self.id, %error, "its record does not say how its command ended");
        }
    }

    /// Says that it is ending, where that takes a while.
    pub(crate) fn begin_to_end(&mut self) {
        self.leave_running();
    }

    /// It is to be removed altogether when this is dropped.
    pub fn remove(&mut self) {
        self.keep = false;
    }

    /// Gives the sandbox to another process, which holds its lock already.
    pub fn hand_over(mut self) {
        self.over = true;
    }

    /// Releases what is to be released, and says what that was. Nothing stops it: what fails is
    /// recorded, logged, and left for `gc`.
    pub fn finish(mut self) -> Vec<Resource> {
        self.end()
    }

    fn end(&mut self) -> Vec<Resource> {
        let mut released = Vec::new();
        if std::mem::replace(&mut self.over, true) {
            return released;
        }
        // What is going to be removed has nobody to tell.
        if let Some(error) = self.reason.as_deref().filter(|_| self.blamed && self.keep)
            && let Err(error) = self.state.blame(self.id, error)
        {
            tracing::warn!(id = %self.id, %error, "its record does not say why it ended");
        }
        self.leave_running();
        let failed = self.release(&mut released, |resource| !outlives_owner(resource));
        if self.phase == Phase::Stopping {
            self.note(if failed { Phase::StopFailed } else { Phase::Stopped });
        }
        // Once it is being removed there is no way back.
        let goes = matches!(self.phase, Phase::Cleaning | Phase::CleanupFailed | Phase::Cleaned);
        if !self.keep || !self.ran || goes {
            self.remove_all(&mut released);
        }
        self.lock = None;
        released
    }

    /// Releases all that is left, and forgets the sandbox.
    fn remove_all(&mut self, released: &mut Vec<Resource>) {
        if self.phase != Phase::Cleaned {
            self.note(Phase::Cleaning);
            if self.release(released, |_| true) {
                return self.note(Phase::CleanupFailed);
            }
            self.note(Phase::Cleaned);
        }
        // Somebody else may have been at the same thing, and faster.
        if let Err(error) = self.state.forget(self.id)
            && error.kind() != Kind::NotFound
        {
            tracing::warn!(id = %self.id, %error, "its record stays until the next gc");
        }
    }

    /// From whatever it was doing to the phase in which things are released.
    fn leave_running(&mut self) {
        let next = match self.phase {
            Phase::Creating => Phase::CreateFailed,
            Phase::Starting => Phase::StartFailed,
            Phase::Running | Phase::StopFailed => Phase::Stopping,
            _ => return,
        };
        self.note(next);
    }

    /// Releases from the top of the stack what `which` says; whether anything failed.
    fn release(&mut self, released: &mut Vec<Resource>, which: impl Fn(&Resource) -> bool) -> bool {
        let mut left = Vec::new();
        for (key, resource) in std::mem::take(&mut self.stack).into_iter().rev() {
            if !which(&resource) {
                left.push((key, resource));
                continue;
            }
            match release(&resource) {
                Ok(()) => {
                    if let Err(error) = self.state.released(key) {
                        tracing::warn!(id = %self.id, %error, "released, but still on record");
                    }
                    released.push(resource);
                }
                Err(error) => {
                    tracing::warn!(id = %self.id, ?resource, %error, "left behind");
                    self.reason = Some(format!("cannot release {resource}: {error}"));
                    left.push((key, resource));
                }
            }
        }
        left.reverse();
        let failed = left.iter().any(|(_, resource)| which(resource));
        self.stack = left;
        failed
    }

    /// Moves to a phase although nobody can do anything about it if that fails.
    fn note(&mut self, phase: Phase) {
        if let Err(error) = self.state.advance(self.id, phase, self.reason.as_deref()) {
            tracing::warn!(id = %self.id, ?phase, %error, "its record is out of date");
        }
        self.phase = phase;
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether what is on record was made under another state directory: this one was copied from there,
/// or moved. What is still there is another sandbox's.
fn is_elsewhere(stack: &[(ResourceKey, Resource)], directory: &Path) -> bool {
    let recorded = stack.iter().find_map(|(_, resource)| match resource {
        Resource::Directory { path } => Some(path.as_path()),
        _ => None,
    });
    // The same directory may have several names.
    recorded
        .is_some_and(|recorded| recorded != directory && Identity::at(recorded) != Identity::at(directory))
}

/// Makes a resource that was made under another state directory the one that is in this.
fn move_to(directory: &Path, resource: &mut Resource) {
    match resource {
        Resource::Directory { path } => directory.clone_into(path),
        Resource::Socket { path } | Resource::ScratchDisk { path } => {
            *path = directory.join(path.file_name().unwrap_or_default());
        }
        // No process has this number; that of the other sandbox is none of our business.
        Resource::Process { pid, .. } => *pid = 0,
        // It names the other directory, and ends with it.
        Resource::ImagePin { .. } => {}
    }
}

/// Undoes one thing; that it was never made, or is gone already, is no error.
fn release(resource: &Resource) -> io::Result<()> {
    let gone = |outcome: io::Result<()>| match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    };
    match resource {
        Resource::Directory { path } => gone(fs::remove_dir_all(path)),
        Resource::Socket { path } | Resource::ScratchDisk { path } | Resource::ImagePin { path } => {
            gone(fs::remove_file(path))
        }
        Resource::Process { pid, start_time } => process::kill(*pid, *start_time, KILL_PATIENCE),
    }
}

/// Whether it stays when a sandbox that is kept has stopped.
fn outlives_owner(resource: &Resource) -> bool {
    match resource {
        Resource::Directory { .. } | Resource::ScratchDisk { .. } | Resource::ImagePin { .. } => true,
        Resource::Socket { .. } | Resource::Process { .. } => false,
    }
}

/// A sandbox could not be entered, or its record not be kept.
#[derive(Debug, Error)]
pub enum TenureError {
    /// Its directory.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Its record.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Explain for TenureError {
    fn kind(&self) -> Kind {
        match self {
            Self::Home(error) => error.kind(),
            Self::State(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Home(error) => error.hint(),
            Self::State(error) => error.hint(),
        }
    }
}

#[cfg(test)]
mod tests;
