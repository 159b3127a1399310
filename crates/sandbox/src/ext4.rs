//! ext4, as far as the host has to do with it: empty file systems in sparse files, and a look at the
//! superblock of one that a user attaches. Mounting is for the guest's kernel only.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::SystemTime;

use mkext4::sink::RegionSink;
use mkext4::{FsBuilder, Layout, Options};

use crate::random::random;

/// What an empty file system is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Its size, MiB.
    pub(crate) size_mb: u64,
    /// Its journal, blocks of 4 KiB; by its size, as `mkfs.ext4` does, if `None`.
    pub(crate) journal_blocks: Option<u32>,
    /// Its identifier.
    pub(crate) uuid: [u8; 16],
    /// When it was made, seconds of the Unix epoch.
    pub(crate) epoch: i64,
}

/// No file system was made.
#[derive(Debug)]
pub(crate) enum LayoutError {
    /// The file could not be written.
    Write(io::Error),
    /// There is no file system of that size.
    Layout(mkext4::Error),
}

impl From<mkext4::Error> for LayoutError {
    fn from(error: mkext4::Error) -> Self {
        match error {
            mkext4::Error::Io(error) => Self::Write(error),
            error => Self::Layout(error),
        }
    }
}

impl Shape {
    /// One that is made now, with a random identifier.
    pub(crate) fn new(size_mb: u64, journal_blocks: Option<u32>) -> io::Result<Self> {
        let epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
        Ok(Self { size_mb, journal_blocks, uuid: random()?, epoch })
    }

    /// Lays it out, in memory: a few instructions for each of its blocks.
    pub(crate) fn lay_out(self) -> Result<Layout, LayoutError> {
        let mut options = Options::new(self.size_mb * 1024 * 1024, self.uuid, self.epoch);
        // Blocks that only root may take are of use where root has to repair things.
        options.reserved_percent = 0;
        options.journal_blocks = self.journal_blocks;
        Ok(FsBuilder::new(options).and_then(FsBuilder::seal)?)
    }
}

/// Makes the empty file `disk` a file system. What is zero takes no space.
pub(crate) fn write(layout: &Layout, disk: &File) -> Result<(), LayoutError> {
    disk.set_len(layout.image_len()).map_err(LayoutError::Write)?;
    layout.writer(Sparse(disk)).and_then(mkext4::build::ImageWriter::finish)?;
    Ok(())
}

/// Writes what is not zero.
struct Sparse<'a>(&'a File);

impl RegionSink for Sparse<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn zeros(&mut self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }
}

/// What a disk holds, judged by its superblock. The guest's kernel judges again, and better; but the
/// host can say it before a VM has booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// An ext4 file system that was unmounted.
    Clean,
    /// An ext4 file system whose journal holds changes that must be made before it is used.
    Unrecovered,
    /// Something else.
    Foreign,
}

/// Where the superblock is, and how long its first half is.
const SUPERBLOCK: u64 = 1024;
const SUPERBLOCK_LEN: usize = 512;

/// Looks at the superblock of `disk`.
pub(crate) fn content(disk: &File) -> io::Result<Content> {
    let mut superblock = [0; SUPERBLOCK_LEN];
    match disk.read_exact_at(&mut superblock, SUPERBLOCK) {
        Ok(()) => Ok(judge(&superblock)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Content::Foreign),
        Err(error) => Err(error),
    }
}

/// Offsets and values as in the kernel's `fs/ext4/ext4.h`, `struct ext4_super_block`.
fn judge(superblock: &[u8; SUPERBLOCK_LEN]) -> Content {
    const MAGIC: (usize, [u8; 2]) = (0x38, [0x53, 0xEF]);
    const INCOMPATIBLE_FEATURES: usize = 0x60;
    const RECOVER: u8 = 0x4;
    if superblock[MAGIC.0..MAGIC.0 + 2] != MAGIC.1 {
        return Content::Foreign;
    }
    match superblock[INCOMPATIBLE_FEATURES] & RECOVER {
        0 => Content::Clean,
        _ => Content::Unrecovered,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_disk_is_judged_by_its_superblock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let disk = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        assert_eq!(content(&disk).unwrap(), Content::Foreign, "empty");
        disk.set_len(1 << 20).unwrap();
        assert_eq!(content(&disk).unwrap(), Content::Foreign, "zeros");
        let shape = Shape { size_mb: 16, journal_blocks: None, uuid: [1; 16], epoch: 0 };
        write(&shape.lay_out().unwrap(), &disk).unwrap();
        assert_eq!(content(&disk).unwrap(), Content::Clean);
        let debugfs =
            Command::new("debugfs").args(["-w", "-R", "feature needs_recovery"]).arg(&path).output();
        assert!(debugfs.expect("debugfs is needed: apt install e2fsprogs").status.success());
        assert_eq!(content(&disk).unwrap(), Content::Unrecovered);
    }
}
