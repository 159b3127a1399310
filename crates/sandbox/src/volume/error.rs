//! Why something cannot be done with a volume.

use std::io;
use std::path::PathBuf;

use api::disk::{MAX_VOLUME_MB, MIN_VOLUME_MB, VolumeName};
use api::error::io_kind;
use api::{Explain, Kind};
use thiserror::Error;

/// Nothing was done with a volume.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// There is none of that name.
    #[error("named volume not found: {0}")]
    NotFound(VolumeName),
    /// There is one of that name.
    #[error("named volume already exists: {0}")]
    Exists(VolumeName),
    /// A sandbox or a copy has it.
    #[error("volume {0} is in use by another sandbox")]
    Busy(VolumeName),
    /// A size that no volume has, MiB.
    #[error("a volume cannot have {0} MB: at least {MIN_VOLUME_MB}, at most {MAX_VOLUME_MB}")]
    Size(u64),
    /// It has the name of one, and is none.
    #[error("{} is not a volume but something else of that name", .0.display())]
    NotAFile(PathBuf),
    /// The file system could not be laid out.
    #[error("cannot lay out a file system of {size_mb} MiB")]
    Layout {
        /// Size asked for, MiB.
        size_mb: u64,
        /// Why.
        source: mkext4::Error,
    },
    /// A file of a volume.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The user stopped it.
    #[error("interrupted")]
    Interrupted,
}

impl Explain for VolumeError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::Exists(_) | Self::Busy(_) | Self::NotAFile(_) => Kind::Conflict,
            Self::Size(_) | Self::Layout { .. } => Kind::InvalidInput,
            Self::Io { source, .. } => io_kind(source),
            Self::Interrupted => Kind::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound(name) => Some(format!(
                "make it with `matchlock volume create {name}`; `matchlock volume ls` lists all"
            )),
            Self::Exists(_) => Some("choose another name, or remove it with `matchlock volume rm`".into()),
            Self::Busy(_) => Some(BUSY.into()),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("free disk space there, or set MATCHLOCK_HOME to another file system".into())
                }
                io::ErrorKind::FileTooLarge => Some(
                    "the file system of MATCHLOCK_HOME holds no file that large: choose another --size"
                        .into(),
                ),
                _ => None,
            },
            Self::Size(_) | Self::NotAFile(_) | Self::Layout { .. } | Self::Interrupted => None,
        }
    }
}

/// What to do about a disk that somebody else has.
pub(crate) const BUSY: &str = "wait for that sandbox to end, or end it; sandboxes can share a disk if all of them \
     attach it with :ro";

/// Makes the error of a failed step on `path`.
pub(super) fn failed(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.into();
    move |source| VolumeError::Io { action, path, source }
}
