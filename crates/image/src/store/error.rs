//! What can go wrong with the store's own files.

use std::io;
use std::path::{Path, PathBuf};

use api::{Explain, Kind};
use thiserror::Error;

use crate::digest::Digest;
use crate::layer::LayerError;
use crate::reference::Reference;

/// Why the store did not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried, as in "cannot …".
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An image's record cannot be understood.
    #[error("the image record {} is damaged", path.display())]
    DamagedRecord {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An image's record is intact but another image's.
    #[error("the image record {} is damaged: it says that it belongs to {tag}", path.display())]
    MisplacedRecord {
        /// Its file.
        path: PathBuf,
        /// The tag in it.
        tag: Reference,
    },
    /// No image has this tag.
    #[error("image {} not found", .0.familiar())]
    UnknownImage(Reference),
    /// An image's layer is gone.
    #[error("layer {diff_id} of image {tag} is missing")]
    LayerMissing {
        /// The image.
        tag: String,
        /// The layer.
        diff_id: Digest,
    },
    /// Layers could not be merged to one disk.
    #[error("the layers of the image cannot be merged")]
    Merge(#[source] LayerError),
    /// The caller stopped it.
    #[error("cancelled")]
    Cancelled,
}

impl StoreError {
    /// For `map_err`: the operation and the file that it was done to.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

impl Explain for StoreError {
    fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } => match api::error::io_kind(source) {
                // A file that must be there is: the user did not name it.
                Kind::NotFound => Kind::HostUnready,
                kind => kind,
            },
            Self::DamagedRecord { .. } | Self::MisplacedRecord { .. } => Kind::Corrupt,
            Self::UnknownImage(_) | Self::LayerMissing { .. } => Kind::NotFound,
            Self::Merge(error) => error.kind(),
            Self::Cancelled => Kind::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } => disk_hint(source),
            Self::DamagedRecord { path, .. } | Self::MisplacedRecord { path, .. } => {
                Some(format!("remove {} and pull or import the image again", path.display()))
            }
            Self::UnknownImage(_) => Some("`matchlock image ls` shows the images there are".into()),
            Self::LayerMissing { tag, .. } => {
                Some(format!("get it again: matchlock pull {tag}, or import it"))
            }
            Self::Merge(error) => error.hint(),
            Self::Cancelled => None,
        }
    }
}

/// What to do about a failing disk, where that can be told from the error.
pub(crate) fn disk_hint(error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(
            "free some space (`matchlock image gc` removes unused layers), or set MATCHLOCK_CACHE to a folder on a \
             larger disk"
                .into(),
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some("set MATCHLOCK_CACHE to a folder that you can write to".into())
        }
        _ => None,
    }
}
