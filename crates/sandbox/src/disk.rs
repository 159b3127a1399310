//! The disks that a user attaches to a sandbox: opened, locked and looked at before a VM starts.
//!
//! The lock is on the file description that the VMM inherits, so it lasts exactly as long as somebody
//! can still write.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use api::disk::{DiskSource, DiskSpec};
use api::error::io_kind;
use api::{Explain, Kind};
use proto::boot::Mount;
use thiserror::Error;
use vmm::{Access, Disk};

use crate::ext4::{self, Content};
use crate::identity::Identity;
use crate::volume::{self, BUSY, Use, VolumeError, Volumes};

/// The unit in which a VM sees a disk, bytes.
const SECTOR: u64 = 512;

/// A disk cannot be attached.
#[derive(Debug, Error)]
pub enum DiskError {
    /// A volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The file cannot be opened or read.
    #[error("cannot use the disk {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("the disk {} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Not a number of sectors.
    #[error("the disk {} has {size} bytes, which is not a multiple of {SECTOR}", path.display())]
    Size {
        /// Which.
        path: PathBuf,
        /// Its size, bytes.
        size: u64,
    },
    /// Another sandbox has it.
    #[error("the disk {} is in use by another sandbox", .0.display())]
    Busy(PathBuf),
    /// There is no file system on it, or another.
    #[error("the disk {0} is not an ext4 file system")]
    NotExt4(DiskSource),
    /// It was not unmounted, and cannot be recovered without writing to it.
    #[error("the disk {0} was not unmounted cleanly, so it cannot be attached read-only")]
    Unrecovered(DiskSource),
    /// The same file twice, and not only for reading.
    #[error("the disk {0} is attached twice")]
    Twice(DiskSource),
    /// Two disks at the same place.
    #[error("two disks are to be mounted at {0}")]
    SamePlace(String),
}

impl Explain for DiskError {
    fn kind(&self) -> Kind {
        match self {
            Self::Volume(error) => error.kind(),
            Self::Open { source, .. } => io_kind(source),
            Self::Busy(_) => Kind::Conflict,
            Self::NotExt4(_) | Self::Unrecovered(_) => Kind::Corrupt,
            Self::NotAFile(_) | Self::Size { .. } | Self::Twice(_) | Self::SamePlace(_) => Kind::InvalidInput,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Volume(error) => error.hint(),
            Self::Open { source, path } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!("make it: truncate -s 1G {path} && mkfs.ext4 {path}", path = path.display()))
            }
            Self::Busy(_) => Some(BUSY.to_owned()),
            Self::NotExt4(DiskSource::File(path)) => {
                Some(format!("make one with `mkfs.ext4 {}`; what is in it now is lost then", path.display()))
            }
            Self::NotExt4(DiskSource::Volume(name)) => {
                Some(format!("somebody has overwritten it: remove it with `matchlock volume rm {name}`"))
            }
            Self::Unrecovered(_) => Some("use it once without :ro, then it is recovered".to_owned()),
            Self::Twice(_) => Some("sharing within a sandbox needs :ro on both".to_owned()),
            Self::Open { .. } | Self::NotAFile(_) | Self::Size { .. } | Self::SamePlace(_) => None,
        }
    }
}

/// A disk for the VM, and what its guest is told of it.
#[derive(Debug)]
pub struct Attached {
    /// For the VMM.
    pub disk: Disk,
    /// For the guest.
    pub mount: Mount,
}

/// Opens and locks all of them.
///
/// # Errors
/// See [`DiskError`]; nothing is locked then.
pub fn attach(specs: &[DiskSpec], volumes: &Volumes) -> Result<Vec<Attached>, DiskError> {
    let mut attached: Vec<Attached> = Vec::with_capacity(specs.len());
    for (number, spec) in specs.iter().enumerate() {
        if specs[..number].iter().any(|earlier| earlier.target == spec.target) {
            return Err(DiskError::SamePlace(spec.target.to_string()));
        }
        let file = open(spec, volumes).map_err(|error| match error {
            DiskError::Busy(_) | DiskError::Volume(VolumeError::Busy(_)) if has(&attached, spec, volumes) => {
                DiskError::Twice(spec.source.clone())
            }
            error => error,
        })?;
        let serial = format!("disk{number}");
        let mount =
            Mount { serial: serial.clone(), target: spec.target.to_string(), read_only: spec.read_only };
        let access = if spec.read_only { Access::ReadOnly } else { Access::Durable };
        attached.push(Attached { disk: Disk { serial, file, access }, mount });
    }
    Ok(attached)
}

/// Whether what another `spec` names is among these already.
fn has(attached: &[Attached], spec: &DiskSpec, volumes: &Volumes) -> bool {
    let wanted = Identity::at(&path(spec, volumes));
    wanted.is_some() && attached.iter().any(|other| Identity::of(&other.disk.file) == wanted)
}

fn path(spec: &DiskSpec, volumes: &Volumes) -> PathBuf {
    match &spec.source {
        DiskSource::File(path) => path.clone(),
        DiskSource::Volume(name) => volumes.path(name),
    }
}

fn open(spec: &DiskSpec, volumes: &Volumes) -> Result<File, DiskError> {
    let intent = if spec.read_only { Use::Shared } else { Use::Exclusive };
    let file = match &spec.source {
        DiskSource::File(path) => open_file(path, intent)?,
        DiskSource::Volume(name) => volumes.open(name, intent)?,
    };
    let failed = |source| DiskError::Open { path: path(spec, volumes), source };
    let size = file.metadata().map_err(failed)?.len();
    match ext4::content(&file).map_err(failed)? {
        Content::Foreign => Err(DiskError::NotExt4(spec.source.clone())),
        Content::Unrecovered if spec.read_only => Err(DiskError::Unrecovered(spec.source.clone())),
        _ if !size.is_multiple_of(SECTOR) => Err(DiskError::Size { path: path(spec, volumes), size }),
        Content::Clean | Content::Unrecovered => Ok(file),
    }
}

fn open_file(path: &Path, intent: Use) -> Result<File, DiskError> {
    let failed = |source| DiskError::Open { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(DiskError::NotAFile(path.to_owned()));
    }
    let file = volume::open(path, intent).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(DiskError::NotAFile(path.to_owned()));
    }
    match volume::lock(&file, intent) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DiskError::Busy(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests;
