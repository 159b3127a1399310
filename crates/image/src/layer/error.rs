//! What can be wrong with a layer, or stop its conversion.

use std::io;

use api::{Explain, Kind};
use thiserror::Error;

use crate::erofs::{ImageError, WriteError, XattrError};

/// Why a layer was not converted, or layers not merged. Names of entries are quoted: a hostile
/// one cannot write to the user's terminal.
#[derive(Debug, Error)]
pub enum LayerError {
    /// The source failed.
    #[error("the layer cannot be read")]
    Read(#[source] io::Error),
    /// The image could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A layer's image that was to be merged is damaged.
    #[error("layer image {layer} cannot be merged")]
    Image {
        /// Its index, 0 being the lowest.
        layer: usize,
        /// What is wrong with it.
        source: ImageError,
    },
    /// There was nothing to merge.
    #[error("an image without layers has no root directory")]
    NoLayers,
    /// The compressed stream is damaged, cut short or wants too much memory.
    #[error("the layer's {compression} stream cannot be decompressed")]
    Decompress {
        /// `gzip` or `zstd`.
        compression: &'static str,
        /// What the decompressor says.
        source: io::Error,
    },
    /// Compressed by something that image layers are not.
    #[error("the layer is compressed with {0}, which OCI layers are not")]
    Compression(&'static str),
    /// Something else altogether.
    #[error("this is no tar stream, nor one compressed with gzip or zstd")]
    NotTar,
    /// The tar stream ends before its end mark.
    #[error("the layer's tar stream is cut short after {0} bytes")]
    Truncated(u64),
    /// A header that makes no sense.
    #[error("the tar header at byte {offset} of the layer is malformed: {problem}")]
    Malformed {
        /// Where it begins in the uncompressed stream.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A type of entry that is none of a file system's.
    #[error("entry {path:?} of the layer has the unknown type {kind:?}")]
    EntryType {
        /// The entry.
        path: String,
        /// Its type flag.
        kind: char,
    },
    /// A path that must not be followed.
    #[error("entry {path:?} of the layer {problem}")]
    Path {
        /// The entry, or what it links to.
        path: String,
        /// What is wrong with its path.
        problem: PathProblem,
    },
    /// An entry beneath something that is not a directory; beneath a symbolic link it would be
    /// written through that link.
    #[error("entry {path:?} of the layer lies beneath {parent:?}, which is {what} in this layer")]
    Beneath {
        /// The entry.
        path: String,
        /// What it lies beneath.
        parent: String,
        /// What that is.
        what: &'static str,
    },
    /// A hard link to nothing, or to what cannot have one.
    #[error("hard link {path:?} of the layer leads to {target:?}, which {problem}")]
    HardLink {
        /// The link.
        path: String,
        /// Where it leads.
        target: String,
        /// Why it cannot.
        problem: &'static str,
    },
    /// An extended attribute that cannot be stored.
    #[error("extended attribute {name:?} of entry {path:?} of the layer cannot be stored")]
    Xattr {
        /// The entry.
        path: String,
        /// The attribute.
        name: String,
        /// Why.
        source: XattrError,
    },
    /// More entries than allowed.
    #[error("the layer has more than {0} entries")]
    TooManyEntries(u64),
    /// More bytes than allowed.
    #[error("the layer expands to more than {0} bytes")]
    TooLarge(u64),
    /// The names and directories would take more memory than allowed.
    #[error("the layer's names and directories take more than {0} bytes of memory")]
    TooMuchMetadata(u64),
    /// The caller's progress function said to stop.
    #[error("the conversion was cancelled")]
    Cancelled,
}

/// What is wrong with an entry's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PathProblem {
    /// It is empty.
    #[error("has an empty path")]
    Empty,
    /// It leads upwards.
    #[error("has a path that leads out of the image (`..`)")]
    Upwards,
    /// No name of Linux contains NUL.
    #[error("has a NUL byte in its path")]
    Nul,
    /// A name is too long.
    #[error("has a name of more than 255 bytes in its path")]
    NameTooLong,
    /// The path is too long.
    #[error("has a path of more than {0} bytes")]
    TooLong(usize),
    /// It lies too deep.
    #[error("lies more than {0} directories deep")]
    TooDeep(usize),
    /// A whiteout of nothing, or used as a directory.
    #[error("is not a well-formed whiteout")]
    Whiteout,
    /// The root can only be a directory.
    #[error("would replace the root directory")]
    Root,
}

impl Explain for LayerError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read(error) | Self::Write(WriteError::Io(error)) => api::error::io_kind(error),
            Self::Image { source, .. } => source.kind(),
            Self::Write(WriteError::TooLarge { .. })
            | Self::TooManyEntries(_)
            | Self::TooLarge(_)
            | Self::TooMuchMetadata(_) => Kind::LimitExceeded,
            Self::Cancelled => Kind::Interrupted,
            _ => Kind::Corrupt,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Image { source, .. } => return source.hint(),
            Self::Write(WriteError::Io(_)) => "check the free space of the image cache",
            Self::Decompress { compression: "zstd", .. } => {
                "fetch or save the image again, whole; zstd layers may have windows of at most 32 MiB"
            }
            Self::Decompress { .. } | Self::Truncated(_) => "fetch or save the image again, whole",
            Self::Compression(_) => "recompress it with gzip or zstd, or give it uncompressed",
            Self::Path { .. } | Self::Beneath { .. } | Self::HardLink { .. } => {
                "rebuild the image; entries like this are refused because they could lead out of it"
            }
            Self::TooManyEntries(_) | Self::TooLarge(_) | Self::TooMuchMetadata(_) => {
                "split the layer into smaller ones"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// A name from a layer, for a message.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
