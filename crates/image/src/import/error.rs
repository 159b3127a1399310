//! What can go wrong with an import.

use std::io;
use std::path::PathBuf;

use api::{Explain, Kind};
use thiserror::Error;

use super::ArchiveError;
use crate::digest::Digest;
use crate::document::{DocumentError, MAX_DOCUMENT};
use crate::ingest::IngestError;
use crate::reference::Reference;
use crate::store::{StoreError, disk_hint};

/// Why an image was not imported.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A tag cannot be a digest: that is what an image is, not what it is called.
    #[error("{} cannot be the tag of an imported image", .0.familiar())]
    TagIsDigest(Reference),
    /// The file or folder cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The input cannot be read to its end.
    #[error("the input cannot be read")]
    Read(#[source] io::Error),
    /// The compressed stream around the image is damaged or cut short.
    #[error("the input's compressed stream is damaged or cut short")]
    Decompress(#[source] io::Error),
    /// The input could not be kept while it is looked into.
    #[error("cannot keep the archive in the store while it is read")]
    Spool(#[source] io::Error),
    /// There was no input at all.
    #[error("the input is empty")]
    Empty,
    /// Too much came out of the compressed stream.
    #[error("the archive is larger than {} GiB", .0 >> 30)]
    Bomb(u64),
    /// The archive's own structure is bad.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file that must be there is not.
    #[error("{0:?} is missing from the image")]
    Missing(String),
    /// A file that should be small is not.
    #[error("{:?} of the image is larger than {} MiB", .0, MAX_DOCUMENT >> 20)]
    TooLarge(String),
    /// A file's name says other content than it has.
    #[error("{path:?} of the image is damaged: expected {expected}, got {actual}")]
    Digest {
        /// Which.
        path: String,
        /// By its name.
        expected: Digest,
        /// By its content.
        actual: Digest,
    },
    /// There are several images, and nothing says which.
    #[error("there are several images: {}", .0.join(", "))]
    Several(Vec<String>),
    /// The image asked for is not there.
    #[error("there is no image {name:?}, only {}", names.join(", "))]
    NoSuchImage {
        /// Which was asked for.
        name: String,
        /// Which there are.
        names: Vec<String>,
    },
    /// There are no images.
    #[error("the archive says that it has no images")]
    NoImages,
    /// It is not an image that can run here.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// One of its layers is bad.
    #[error(transparent)]
    Layer(#[from] IngestError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller stopped it.
    #[error("cancelled")]
    Cancelled,
}

impl Explain for ImportError {
    fn kind(&self) -> Kind {
        match self {
            Self::TagIsDigest(_) | Self::Several(_) => Kind::InvalidInput,
            Self::Open { source, .. } | Self::Read(source) | Self::Spool(source) => {
                api::error::io_kind(source)
            }
            Self::NoSuchImage { .. } => Kind::NotFound,
            Self::Empty | Self::NoImages | Self::Decompress(_) | Self::Missing(_) | Self::Digest { .. } => {
                Kind::Corrupt
            }
            Self::Archive(error) => error.kind(),
            Self::Bomb(_) | Self::TooLarge(_) => Kind::LimitExceeded,
            Self::Document(error) => error.kind(),
            Self::Layer(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Cancelled => Kind::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::TagIsDigest(_) => Some("give it a name, for example app:1".into()),
            Self::Several(names) => {
                Some(format!("say which one with --select, for example --select {}", names.first()?))
            }
            Self::NoSuchImage { .. } => Some("select one of those".into()),
            Self::Empty => {
                Some("give a file, or pipe an image in: docker save app | matchlock image import app".into())
            }
            Self::Archive(error) if error.kind() != Kind::Corrupt => None,
            Self::Decompress(_)
            | Self::Archive(_)
            | Self::Missing(_)
            | Self::Digest { .. }
            | Self::NoImages => {
                Some("the file is damaged or was cut short: make or transfer it again".into())
            }
            Self::Spool(error) => disk_hint(error),
            Self::Document(error) => error.hint(),
            Self::Layer(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Open { .. } | Self::Read(_) | Self::Bomb(_) | Self::TooLarge(_) | Self::Cancelled => None,
        }
    }
}
