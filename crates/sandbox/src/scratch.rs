//! The scratch disk: an empty ext4 file system in a sparse file, the writable layer of a
//! sandbox's root.
//!
//! The file has no name, so it goes with the last process that holds it, however that ends.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use api::error::io_kind;
use api::{Explain, Kind};
use mkext4::{FsBuilder, Options, sink::RegionSink};
use rustix::fs::{Mode, OFlags};
use thiserror::Error;

/// Journal of a scratch disk, in blocks of 4 KiB: 4 MiB. ext4's own default (64 MiB at 5 GiB)
/// would be written through once over, page by page, by a busy guest.
const JOURNAL_BLOCKS: u32 = 1024;

/// A scratch disk could not be made.
#[derive(Debug, Error)]
pub enum ScratchError {
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
}

impl Explain for ScratchError {
    fn kind(&self) -> Kind {
        match self {
            Self::File { source, .. } | Self::Layout { source: mkext4::Error::Io(source), .. } => {
                io_kind(source)
            }
            Self::Layout { .. } => Kind::InvalidInput,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Layout { source: mkext4::Error::Io(_), .. } | Self::File { .. } => {
                Some("free disk space there, or set MATCHLOCK_HOME to another file system".into())
            }
            Self::Layout { .. } => Some("choose another --disk-size".into()),
        }
    }
}

/// Makes an empty scratch disk of `size_mb` MiB in a nameless file of `directory`.
///
/// # Errors
/// When `directory`'s file system is full or cannot hold such a file.
pub fn create(directory: &Path, size_mb: u64, uuid: [u8; 16], epoch: i64) -> Result<File, ScratchError> {
    let file = |source: io::Error| ScratchError::File { directory: directory.to_owned(), source };
    let layout = |source| ScratchError::Layout { size_mb, source };
    let disk = rustix::fs::open(
        directory,
        OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    )
    .map_err(|errno| file(errno.into()))?;
    let disk = File::from(disk);
    let size_bytes = size_mb * 1024 * 1024;
    disk.set_len(size_bytes).map_err(file)?;
    let mut options = Options::new(size_bytes, uuid, epoch);
    options.reserved_percent = 0;
    options.journal_blocks = Some(JOURNAL_BLOCKS);
    let sealed = FsBuilder::new(options).and_then(FsBuilder::seal).map_err(layout)?;
    sealed.writer(Sparse(&disk)).and_then(mkext4::build::ImageWriter::finish).map_err(layout)?;
    Ok(disk)
}

/// Writes what is not zero.
struct Sparse<'a>(&'a File);

impl RegionSink for Sparse<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self.0, bytes, offset)
    }

    fn zeros(&mut self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::process::Command;

    use api::spec::{DEFAULT_DISK_MB, MIN_DISK_MB};

    use super::*;

    /// The oracle is e2fsck, on the nameless file itself.
    #[test]
    fn e2fsck_finds_nothing_wrong_and_the_file_is_sparse() {
        let directory = tempfile::tempdir().unwrap();
        for size in [MIN_DISK_MB, 100, DEFAULT_DISK_MB, 200 * 1024] {
            let disk = create(directory.path(), size, [7; 16], 1_700_000_000).unwrap();
            let path = format!("/proc/{}/fd/{}", std::process::id(), disk.as_raw_fd());
            let check = Command::new("e2fsck").args(["-f", "-n", &path]).output();
            let check = check.expect("e2fsck is needed: apt install e2fsprogs");
            assert!(check.status.success(), "{size} MiB: {}", String::from_utf8_lossy(&check.stdout));
            let written = disk.metadata().unwrap().blocks() * 512;
            assert!(written < (size << 20) / 20 + (8 << 20), "{size} MiB took {written} bytes");
        }
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_missing_directory_is_told() {
        let error = create(Path::new("/nonexistent"), 64, [0; 16], 0).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.to_string().contains("/nonexistent"));
    }
}
