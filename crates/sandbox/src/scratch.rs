//! The scratch disk: an empty ext4 file system in a sparse file, the writable layer of a
//! sandbox's root.
//!
//! The file has no name, so it goes with the last process that holds it, however that ends; unless the
//! sandbox is to be kept, then it has one and a lock that says whether a VM has it.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use api::error::io_kind;
use api::{Explain, Kind};
use sys::draft::Draft;
use thiserror::Error;

use crate::ext4::{self, LayoutError, Shape};
use crate::volume::{self, Use};

/// Journal of a scratch disk, in blocks of 4 KiB: 4 MiB. ext4's own default (64 MiB at 5 GiB)
/// would be written through once over, page by page, by a busy guest.
const JOURNAL_BLOCKS: u32 = 1024;

/// A scratch disk could not be made.
#[derive(Debug, Error)]
pub enum ScratchError {
    /// The host's kernel gave no randomness or no thread.
    #[error("cannot begin with a scratch disk")]
    Begin(#[source] io::Error),
    /// The file could not be made or written.
    #[error("cannot make a scratch disk in {}", directory.display())]
    File {
        /// Where.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file system could not be laid out.
    #[error("cannot lay out a scratch disk of {size_mb} MiB")]
    Layout {
        /// Size asked for, MiB.
        size_mb: u64,
        /// Why.
        source: mkext4::Error,
    },
    /// A kept one could not be named or opened.
    #[error("cannot use the scratch disk {}", path.display())]
    Kept {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A kept one is another VM's at the moment.
    #[error("the scratch disk {} is in use by another VM", .0.display())]
    Busy(PathBuf),
}

impl Explain for ScratchError {
    fn kind(&self) -> Kind {
        match self {
            Self::Begin(source) | Self::File { source, .. } => io_kind(source),
            Self::Layout { .. } => Kind::InvalidInput,
            Self::Kept { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => Kind::Conflict,
            Self::Kept { source, .. } => io_kind(source),
            Self::Busy(_) => Kind::Conflict,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File { .. } => {
                Some("free disk space there, or set MATCHLOCK_HOME to another file system".into())
            }
            Self::Layout { .. } => Some("choose another --disk-size".into()),
            Self::Begin(_) | Self::Kept { .. } | Self::Busy(_) => None,
        }
    }
}

/// An empty file system, which a thread lays out in memory while other things are done: some milliseconds for
/// tens of GiB.
#[derive(Debug)]
pub struct Blank {
    size_mb: u64,
    layout: JoinHandle<Result<mkext4::Layout, LayoutError>>,
}

impl Blank {
    /// Begins with one of `size_mb` MiB.
    ///
    /// # Errors
    /// When the kernel gives no randomness or no thread.
    pub fn begin(size_mb: u64) -> Result<Self, ScratchError> {
        let shape = Shape::new(size_mb, Some(JOURNAL_BLOCKS)).map_err(ScratchError::Begin)?;
        let thread = thread::Builder::new().name("scratch disk".to_owned());
        let layout = thread.spawn(move || shape.lay_out()).map_err(ScratchError::Begin)?;
        Ok(Self { size_mb, layout })
    }

    /// Waits for it, and makes it a file of `directory`.
    fn draft(self, directory: &Path) -> Result<Draft, ScratchError> {
        let file = |source: io::Error| ScratchError::File { directory: directory.to_owned(), source };
        let mut disk = Draft::create(directory).map_err(file)?;
        let layout = self.layout.join().expect("laying out does not panic");
        layout.and_then(|layout| ext4::write(&layout, disk.file())).map_err(|error| match error {
            LayoutError::Write(source) => file(source),
            LayoutError::Layout(source) => ScratchError::Layout { size_mb: self.size_mb, source },
        })?;
        Ok(disk)
    }
}

/// Makes an empty scratch disk in a nameless file of `directory`.
///
/// # Errors
/// When `directory`'s file system is full or cannot hold such a file.
pub fn create(directory: &Path, blank: Blank) -> Result<File, ScratchError> {
    Ok(blank.draft(directory)?.into_file())
}

/// Makes a scratch disk that outlives its VM, at `path`, where nothing may be yet. It is locked, see
/// [`open_named`], before anybody else can see it.
///
/// # Errors
/// As of [`create`]; when something is at `path`. No half disk is left there.
pub fn create_named(path: &Path, blank: Blank) -> Result<File, ScratchError> {
    let mut disk = blank.draft(path.parent().unwrap_or(Path::new("/")))?;
    lock(disk.file(), path)?;
    disk.publish(path).map_err(|source| ScratchError::Kept { path: path.to_owned(), source })
}

/// Opens a scratch disk of an earlier VM and locks it, for as long as the file, or the VMM that gets
/// it, is there.
///
/// # Errors
/// When it is missing, or a VM has it.
pub fn open_named(path: &Path) -> Result<File, ScratchError> {
    let disk = File::options().read(true).write(true).open(path);
    let disk = disk.map_err(|source| ScratchError::Kept { path: path.to_owned(), source })?;
    lock(&disk, path)?;
    Ok(disk)
}

fn lock(disk: &File, path: &Path) -> Result<(), ScratchError> {
    volume::lock(disk, Use::Exclusive).map_err(|error| match error {
        TryLockError::WouldBlock => ScratchError::Busy(path.to_owned()),
        TryLockError::Error(source) => ScratchError::Kept { path: path.to_owned(), source },
    })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vm_tests;
