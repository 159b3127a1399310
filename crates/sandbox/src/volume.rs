//! Named volumes: disks of the user's, each an ext4 file system in a sparse file of the state
//! directory.
//!
//! A volume is in use as long as somebody holds a lock (`flock(2)`) on its file: sandboxes, whose VMM
//! inherits it, and copies. Writers exclude everybody, readers only writers. A new volume gets its name
//! when it is whole, so nothing half made is ever seen or left.

mod copy;
mod error;

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use api::disk::{MAX_VOLUME_MB, MIN_VOLUME_MB, VolumeName};
use image::store::Cancel;
use sys::draft::{self, Draft};

pub(crate) use error::BUSY;
pub use error::VolumeError;
use error::failed;

use crate::ext4::{self, LayoutError, Shape};
use crate::identity::Identity;

/// What follows a volume's name in its file's.
const EXTENSION: &str = "ext4";

/// The volumes of a state directory.
#[derive(Debug, Clone)]
pub struct Volumes {
    directory: PathBuf,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: VolumeName,
    /// How much fits, bytes, with what the file system needs itself.
    pub size: u64,
    /// How much space it takes on the host, bytes.
    pub taken: u64,
    /// Its file.
    pub path: PathBuf,
}

/// How a volume is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// With others that read it.
    Shared,
    /// Alone.
    Exclusive,
}

impl Volumes {
    /// The volumes of the state directory `home` (`MATCHLOCK_HOME`).
    #[must_use]
    pub fn new(home: &Path) -> Self {
        Self { directory: home.join("volumes") }
    }

    /// Makes a volume of `size_mb` MiB.
    ///
    /// # Errors
    /// When there is one of that name, a volume cannot have that size, or there is no space.
    pub fn create(&self, name: &VolumeName, size_mb: u64) -> Result<Volume, VolumeError> {
        if !(MIN_VOLUME_MB..=MAX_VOLUME_MB).contains(&size_mb) {
            return Err(VolumeError::Size(size_mb));
        }
        let mut draft = self.draft(name)?;
        let make = |error: io::Error| failed("make", self.path(name))(error);
        let shape = Shape::new(size_mb, None).map_err(make)?;
        let written = shape.lay_out().and_then(|layout| ext4::write(&layout, draft.file()));
        written.map_err(|error| match error {
            LayoutError::Write(error) => make(error),
            LayoutError::Layout(source) => VolumeError::Layout { size_mb, source },
        })?;
        self.publish(draft, name)
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// When their directory cannot be read; that there is none means no volumes.
    pub fn list(&self) -> Result<Vec<Volume>, VolumeError> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("read", &self.directory))?,
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("read", &self.directory))?;
            let Some(name) = name(&entry.path()) else { continue };
            match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_file() => volumes.push(self.describe(name, &metadata)),
                Ok(_) => {}
                // Removed while we look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("read", entry.path())(error)),
            }
        }
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(volumes)
    }

    /// Removes a volume and all that is in it.
    ///
    /// # Errors
    /// When there is none of that name, or it is in use.
    pub fn remove(&self, name: &VolumeName) -> Result<(), VolumeError> {
        // Locked until it has no name any more: nobody can begin to use what is about to go.
        let _locked = self.open(name, Use::Exclusive)?;
        let path = self.path(name);
        fs::remove_file(&path).map_err(failed("remove", path))
    }

    /// Makes the volume `to` a copy of `from`. Tells `progress` how many bytes of about how many are
    /// copied.
    ///
    /// # Errors
    /// When there is no `from`, a sandbox writes to it, there is a `to`, or no space; and when it was
    /// asked to stop. Nothing is left then.
    pub fn copy(
        &self,
        from: &VolumeName,
        to: &VolumeName,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Volume, VolumeError> {
        let source = self.open(from, Use::Shared)?;
        let mut draft = self.draft(to)?;
        let whole =
            copy::copy(&source, draft.file(), cancel, progress).map_err(failed("write", self.path(to)))?;
        if !whole {
            return Err(VolumeError::Interrupted);
        }
        self.publish(draft, to)
    }

    /// Opens a volume, with a lock for as long as the file description lives.
    pub(crate) fn open(&self, name: &VolumeName, intent: Use) -> Result<File, VolumeError> {
        let path = self.path(name);
        loop {
            let file = match open(&path, intent) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(VolumeError::NotFound(name.clone()));
                }
                file => file.map_err(failed("open", &path))?,
            };
            let metadata = file.metadata().map_err(failed("open", &path))?;
            if !metadata.is_file() {
                return Err(VolumeError::NotAFile(path));
            }
            match lock(&file, intent) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(VolumeError::Busy(name.clone())),
                Err(TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
            }
            // Between opening and locking it may have been removed, and another made.
            if Identity::at(&path) == Some(Identity::from(metadata)) {
                return Ok(file);
            }
        }
    }

    /// A file that may become the volume `name`.
    fn draft(&self, name: &VolumeName) -> Result<Draft, VolumeError> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.directory).map_err(failed("make", &self.directory))?;
        let path = self.path(name);
        // Asked again when it gets its name; this only saves the work.
        if fs::symlink_metadata(&path).is_ok() {
            return Err(VolumeError::Exists(name.clone()));
        }
        if let Err(error) = draft::sweep(&self.directory, draft::is_draft) {
            // Nothing that hinders.
            tracing::warn!(%error, "leftovers among the volumes cannot be removed");
        }
        Draft::create(&self.directory).map_err(failed("make", path))
    }

    fn publish(&self, draft: Draft, name: &VolumeName) -> Result<Volume, VolumeError> {
        let path = self.path(name);
        let file = match draft.publish(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(VolumeError::Exists(name.clone()));
            }
            published => published.map_err(failed("write", &path))?,
        };
        let metadata = file.metadata().map_err(failed("read", path))?;
        Ok(self.describe(name.clone(), &metadata))
    }

    fn describe(&self, name: VolumeName, metadata: &fs::Metadata) -> Volume {
        let path = self.path(&name);
        Volume { name, size: metadata.len(), taken: metadata.blocks() * 512, path }
    }

    /// The file of the volume of that name.
    pub(crate) fn path(&self, name: &VolumeName) -> PathBuf {
        self.directory.join(format!("{name}.{EXTENSION}"))
    }
}

/// The volume whose file this would be.
fn name(path: &Path) -> Option<VolumeName> {
    let extension = path.extension()?;
    (extension == EXTENSION).then(|| path.file_stem()?.to_str()?.parse().ok())?
}

/// Opens the file of a disk. One that is no file is opened too, without waiting for anybody.
pub(crate) fn open(path: &Path, intent: Use) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).expect("flags are small");
    File::options().read(true).write(intent == Use::Exclusive).custom_flags(flags).open(path)
}

/// How long whoever is about to let go of a disk has for it: a VMM that was killed, or a new child of this
/// process, which has copies of all descriptors until it executes its program.
const PATIENCE: Duration = Duration::from_millis(250);

/// Locks a disk, without waiting for somebody who means to keep it.
pub(crate) fn lock(file: &File, intent: Use) -> Result<(), TryLockError> {
    let start = Instant::now();
    loop {
        let locked = match intent {
            Use::Shared => file.try_lock_shared(),
            Use::Exclusive => file.try_lock(),
        };
        match locked {
            Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(5));
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests;
