//! The state directory, and one directory in it for each sandbox while it lives.
//!
//! A sandbox's directory holds its lock file and its console log. Liveness is the lock: whoever
//! can take it knows that the owner is gone, and [`Home::sweep`] then removes the directory.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use api::error::io_kind;
use api::{Explain, Kind, SandboxId};
use thiserror::Error;

use crate::random::random;

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
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    move |source| HomeError { action, path: path.to_owned(), source }
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct Home {
    path: PathBuf,
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

    /// Makes the directory of a new sandbox under a fresh identifier, and locks it.
    ///
    /// # Errors
    /// When the file system is full or not writable.
    pub fn claim(&self) -> Result<SandboxDir, HomeError> {
        let _guard = self.lock()?;
        loop {
            let bits = random().map_err(failed("draw an ID for", &self.path))?;
            let id = SandboxId::from_bits(u32::from_ne_bytes(bits));
            let path = self.sandboxes().join(id.to_string());
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return SandboxDir::lock(id, path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("make", &path)(error)),
            }
        }
    }

    /// Removes what sandboxes whose owner is gone have left behind, and says whose it was.
    ///
    /// # Errors
    /// When the directory cannot be read; what cannot be removed is left for the next time.
    pub fn sweep(&self) -> Result<Vec<SandboxId>, HomeError> {
        let _guard = self.lock()?;
        let sandboxes = self.sandboxes();
        let mut swept = Vec::new();
        for entry in fs::read_dir(&sandboxes).map_err(failed("read", &sandboxes))? {
            let entry = entry.map_err(failed("read", &sandboxes))?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if is_abandoned(&entry.path()) && fs::remove_dir_all(entry.path()).is_ok() {
                swept.push(id);
            }
        }
        Ok(swept)
    }

    fn sandboxes(&self) -> PathBuf {
        self.path.join("sandboxes")
    }

    /// Keeps a new directory from being swept before its owner has locked it.
    fn lock(&self) -> Result<File, HomeError> {
        let path = self.path.join("lock");
        let file = File::options().create(true).append(true).open(&path).map_err(failed("open", &path))?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(file)
    }
}

/// Whether the owner of a sandbox's directory is gone. A directory without a lock file is one whose
/// owner died while making or removing it.
fn is_abandoned(directory: &Path) -> bool {
    match File::open(directory.join(LOCK)) {
        Ok(lock) => !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

const LOCK: &str = "lock";

/// The directory of a living sandbox; removed when dropped.
#[derive(Debug)]
pub struct SandboxDir {
    id: SandboxId,
    path: PathBuf,
    _lock: File,
}

impl SandboxDir {
    fn lock(id: SandboxId, path: PathBuf) -> Result<Self, HomeError> {
        let lock_path = path.join(LOCK);
        let lock = File::create_new(&lock_path).map_err(failed("make", &lock_path))?;
        lock.lock().map_err(failed("lock", &lock_path))?;
        Ok(Self { id, path, _lock: lock })
    }

    /// Whose it is.
    #[must_use]
    pub fn id(&self) -> SandboxId {
        self.id
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SandboxDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "left behind for the next sweep");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_abandoned_directories_are_swept() {
        let base = tempfile::tempdir().unwrap();
        let home = Home::open(&base.path().join("deep/home")).unwrap();
        let living = home.claim().unwrap();
        let gone = home.claim().unwrap();
        let gone_path = gone.path().to_owned();
        fs::write(gone_path.join("console.log"), "x").unwrap();
        // As after kill -9: the lock is let go, the directory stays.
        let gone_id = gone.id();
        let SandboxDir { _lock: ref lock, .. } = gone;
        lock.unlock().unwrap();
        std::mem::forget(gone);
        assert_eq!(home.sweep().unwrap(), [gone_id]);
        assert!(!gone_path.exists() && living.path().exists());
        let path = living.path().to_owned();
        drop(living);
        assert!(!path.exists());
    }
}
