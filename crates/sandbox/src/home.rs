//! The state directory: the database of sandboxes, their directories, and who is alive.
//!
//! ```text
//! state.db                   see `state`
//! lock                       who makes or removes sandboxes; held for moments
//! sandboxes/<ID>/lock        held by the sandbox's owner: liveness is this lock, never a PID
//! sandboxes/<ID>/rpc.sock    where the owner answers
//! sandboxes/<ID>/log         what its console and its commands wrote, `log.1` before it
//! sandboxes/<ID>/scratch.ext4   the disk of a sandbox that is kept
//! volumes/<name>.ext4        see `volume`
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use api::error::io_kind;
use api::{Explain, Kind, SandboxId};
use thiserror::Error;

use crate::identity::Identity;
use crate::state;

/// Something in the state directory could not be made or read.
#[derive(Debug, Error)]
#[error("cannot {action} {}", path.display())]
pub struct HomeError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Explain for HomeError {
    fn kind(&self) -> Kind {
        io_kind(&self.source)
    }

    fn hint(&self) -> Option<String> {
        Some("set MATCHLOCK_HOME to a directory of yours with some free space".into())
    }
}

/// Makes the error of a failed step on `path`.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    move |source| HomeError { action, path: path.to_owned(), source }
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct Home {
    path: PathBuf,
}

/// Whether a sandbox has an owner.
#[derive(Debug)]
pub enum Ownership {
    /// A living process owns it.
    Owned,
    /// Nobody did; now the holder of this lock does.
    Taken(File),
    /// Its directory or its lock file is not there.
    Missing,
}

impl Home {
    /// Opens the state directory at `path`, and makes it, private to the user, if it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> Result<Self, HomeError> {
        let home = Self { path: path.to_owned() };
        let sandboxes = home.sandboxes();
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&sandboxes).map_err(failed("make", &sandboxes))?;
        Ok(home)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database of sandboxes.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path.join(state::FILE_NAME)
    }

    /// The directory of a sandbox.
    #[must_use]
    pub fn directory(&self, id: SandboxId) -> PathBuf {
        self.sandboxes().join(id.to_string())
    }

    /// The IDs of all directories of sandboxes.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn directories(&self) -> Result<Vec<SandboxId>, HomeError> {
        let sandboxes = self.sandboxes();
        let mut found = Vec::new();
        for entry in fs::read_dir(&sandboxes).map_err(failed("read", &sandboxes))? {
            let entry = entry.map_err(failed("read", &sandboxes))?;
            found.extend(entry.file_name().to_str().and_then(|name| name.parse::<SandboxId>().ok()));
        }
        Ok(found)
    }

    /// Keeps everybody else from making and removing sandboxes until it is dropped.
    ///
    /// # Errors
    /// When the lock cannot be made.
    pub fn lock(&self) -> Result<File, HomeError> {
        let file = self.lock_file()?;
        file.lock().map_err(failed("lock", &self.path))?;
        Ok(file)
    }

    /// Makes the directory of a new sandbox, and its lock file, locked. The caller holds
    /// [`Home::lock`].
    ///
    /// # Errors
    /// When the file system is full or not writable.
    pub(crate) fn make_directory(&self, id: SandboxId) -> Result<File, HomeError> {
        let path = self.directory(id);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed("make", &path))?;
        let path = path.join(LOCK);
        let mut options = File::options();
        let lock =
            options.write(true).create_new(true).mode(0o600).open(&path).map_err(failed("make", &path))?;
        lock.lock().map_err(failed("lock", &path))?;
        Ok(lock)
    }

    /// Becomes the owner of a sandbox by a lock that another process has handed over.
    ///
    /// # Errors
    /// When `lock` is another file than the sandbox's lock, or somebody else holds that.
    pub(crate) fn accept(&self, id: SandboxId, lock: File) -> Result<File, HomeError> {
        let path = self.directory(id).join(LOCK);
        let wanted = fs::metadata(&path).map(Identity::from).map_err(failed("look at", &path))?;
        if Identity::of(&lock) != Some(wanted) {
            return Err(failed("take over", &path)(io::ErrorKind::InvalidInput.into()));
        }
        // It is held by this very description, so that taking it again changes nothing.
        lock.try_lock().map_err(|error| failed("take over", &path)(error.into()))?;
        Ok(lock)
    }

    /// Looks whether a sandbox has a living owner, and becomes it if not.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn take(&self, id: SandboxId) -> Result<Ownership, HomeError> {
        let _guard = self.lock()?;
        self.look(id, File::try_lock)
    }

    /// Whether a sandbox has a living owner. What cannot be looked at counts as living.
    #[must_use]
    pub fn is_owned(&self, id: SandboxId) -> bool {
        let look = || {
            // A look holds the sandbox's lock for a moment; nobody who wants it shall be in its way.
            let guard = self.lock_file()?;
            guard.lock_shared().map_err(failed("lock", &self.path))?;
            self.look(id, File::try_lock_shared)
        };
        matches!(look(), Ok(Ownership::Owned) | Err(_))
    }

    /// Whether it is this process that has a sandbox's lock. A number on record may be a stranger's by
    /// now, while somebody else tidies up.
    #[must_use]
    pub fn is_owned_by(&self, id: SandboxId, pid: u32) -> bool {
        let Some(lock) = Identity::at(&self.directory(id).join(LOCK)) else { return false };
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        self.is_owned(id) && open.flatten().any(|entry| Identity::at(&entry.path()) == Some(lock))
    }

    fn look(
        &self,
        id: SandboxId,
        try_lock: fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Ownership, HomeError> {
        let path = self.directory(id).join(LOCK);
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ownership::Missing),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        match try_lock(&lock) {
            Ok(()) => Ok(Ownership::Taken(lock)),
            Err(TryLockError::WouldBlock) => Ok(Ownership::Owned),
            Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
        }
    }

    fn lock_file(&self) -> Result<File, HomeError> {
        let path = self.path.join("lock");
        File::options().create(true).append(true).mode(0o600).open(&path).map_err(failed("open", &path))
    }

    fn sandboxes(&self) -> PathBuf {
        self.path.join("sandboxes")
    }
}

/// The socket in a sandbox's directory where its owner answers.
pub const SOCKET: &str = "rpc.sock";

/// The lock file in a sandbox's directory.
const LOCK: &str = "lock";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, Instant};

    use super::*;

    const ID: SandboxId = SandboxId::from_bits(7);

    #[test]
    fn a_sandbox_is_owned_as_long_as_somebody_holds_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        assert!(matches!(home.take(ID).unwrap(), Ownership::Missing));
        let owner = home.make_directory(ID).unwrap();
        assert!(home.is_owned(ID));
        assert_eq!(home.directories().unwrap(), [ID]);
        let handed_on = owner.try_clone().unwrap();
        drop(owner);
        assert!(home.is_owned_by(ID, std::process::id()));
        assert!(!home.is_owned_by(ID, std::os::unix::process::parent_id()), "a stranger");
        assert!(home.is_owned(ID), "the lock goes with the last who holds it");
        drop(handed_on);
        // A child that another test has just forked holds it too, until it executes its program.
        let patience = Instant::now() + Duration::from_secs(1);
        let _lock = loop {
            if let Ownership::Taken(lock) = home.take(ID).unwrap() {
                break lock;
            }
            assert!(Instant::now() < patience, "nobody owns it");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(home.is_owned(ID));
    }

    #[test]
    fn a_lock_is_handed_over_and_no_other_file_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let owner = home.make_directory(ID).unwrap();
        home.accept(ID, owner.try_clone().unwrap()).unwrap();
        home.accept(ID, File::open("/dev/null").unwrap()).unwrap_err();
        // The right file, but not the description that holds the lock.
        let stranger = File::open(home.directory(ID).join(LOCK)).unwrap();
        home.accept(ID, stranger).unwrap_err();
        drop(owner);
    }

    #[test]
    fn everything_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(&folder.path().join("a/b")).unwrap();
        home.make_directory(ID).unwrap();
        drop(home.lock().unwrap());
        let (own, sandbox) = (home.path().to_owned(), home.directory(ID));
        let files = [(own.join("lock"), 0o600), (sandbox.join(LOCK), 0o600)];
        for (path, mode) in files.into_iter().chain([(own, 0o700), (sandbox, 0o700)]) {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
    }

    #[test]
    fn a_home_that_cannot_be_is_told() {
        let error = Home::open(Path::new("/proc/nowhere")).unwrap_err();
        assert!(error.to_string().contains("/proc/nowhere"), "{error}");
    }
}
