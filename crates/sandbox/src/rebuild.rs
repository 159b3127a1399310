//! A new database in place of a damaged one. Each sandbox's directory holds a copy of what was first
//! recorded of it, from which it is entered again.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::lifecycle::{Phase, Resource};
use api::{SandboxId, SandboxName};
use image::store::Store;
use serde::{Deserialize, Serialize};

use crate::home::{Home, SOCKET};
use crate::launch::{SCRATCH_FILE, Site};
use crate::reconcile::ReconcileError;
use crate::state::{NewSandbox, State, StateError};

/// The copy, in a sandbox's directory.
const FILE: &str = "sandbox.json";

/// What history says of the phases of a sandbox that is entered again.
const NOTE: &str = "entered again: the database was damaged";

/// What the copy holds.
#[derive(Serialize, Deserialize)]
struct Saved {
    id: SandboxId,
    name: Option<SandboxName>,
    image: String,
    backend: String,
    keep: bool,
    spec: String,
}

/// Writes the copy into a new sandbox's directory.
pub(crate) fn save(new: &NewSandbox, directory: &Path) -> io::Result<()> {
    let NewSandbox { id, name, image, backend, keep, spec, owner_pid: _ } = new.clone();
    let saved = Saved { id, name, image, backend, keep, spec };
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(directory.join(FILE))?;
    file.write_all(&serde_json::to_vec(&saved)?)
}

/// Whether the copy in a sandbox's directory says that it is to be kept.
pub(crate) fn is_to_be_kept(id: SandboxId, directory: &Path) -> bool {
    saved(id, directory).is_some_and(|saved| saved.keep)
}

/// What a rebuilt database holds.
#[derive(Debug)]
pub struct Rebuilt {
    /// Where the damaged one is now; `None` if it was sound, and is still the one in use.
    pub moved: Option<PathBuf>,
    /// The sandboxes that were entered again.
    pub entered: Vec<SandboxId>,
}

/// Begins a new database if that in `home` is damaged, and enters the sandboxes again that run or
/// are kept, as far as they can be read. What is left of others is for `gc`.
///
/// # Errors
/// When the state directory is not writable.
pub fn rebuild(home: &Home, images: &Store) -> Result<Rebuilt, ReconcileError> {
    let (state, moved) = State::rebuild(&home.database())?;
    let site = Site { home: home.clone(), state: Arc::new(state), images: images.clone() };
    let mut entered = Vec::new();
    for id in site.home.directories()? {
        let directory = site.home.directory(id);
        let Some(saved) = saved(id, &directory) else {
            tracing::warn!(%id, "what is in its directory cannot be read");
            continue;
        };
        let alive = site.home.is_owned(id);
        if site.state.record(id).is_ok() || !(alive || saved.keep) {
            continue;
        }
        match enter(&site, saved, alive) {
            Ok(()) => entered.push(id),
            Err(error) => tracing::warn!(%id, %error, "cannot be entered again"),
        }
    }
    Ok(Rebuilt { moved, entered })
}

fn saved(id: SandboxId, directory: &Path) -> Option<Saved> {
    let copy = fs::read(directory.join(FILE)).ok()?;
    serde_json::from_slice::<Saved>(&copy).ok().filter(|saved| saved.id == id)
}

fn enter(site: &Site, saved: Saved, alive: bool) -> Result<(), StateError> {
    let Saved { id, name, image, backend, keep, spec } = saved;
    site.state.insert(&NewSandbox { id, name, image, backend, keep, spec, owner_pid: None })?;
    let directory = site.home.directory(id);
    site.state.plan(id, &Resource::Directory { path: directory.clone() })?;
    if keep {
        site.state.plan(id, &Resource::ImagePin { path: site.images.pin_path(&directory) })?;
        site.state.plan(id, &Resource::ScratchDisk { path: directory.join(SCRATCH_FILE) })?;
    }
    site.state.plan(id, &Resource::Socket { path: directory.join(SOCKET) })?;
    let stopped: &[Phase] = if alive { &[] } else { &[Phase::Stopping, Phase::Stopped] };
    for phase in [Phase::Created, Phase::Starting, Phase::Running].iter().chain(stopped) {
        site.state.advance(id, *phase, Some(NOTE))?;
    }
    Ok(())
}
