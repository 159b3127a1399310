//! Which file it is, whatever its name: names lead elsewhere tomorrow, and one file may have several.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A file's device and inode number (`stat(2)`). They are its own for as long as it is open or has
/// a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of what has this path now, links followed; `None` if that cannot be looked at.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        path.metadata().ok().map(Self::from)
    }

    /// Of an open file.
    pub(crate) fn of(file: &File) -> Option<Self> {
        file.metadata().ok().map(Self::from)
    }
}

impl From<Metadata> for Identity {
    fn from(metadata: Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}
