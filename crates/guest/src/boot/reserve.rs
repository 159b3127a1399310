//! A reserve on a scratch disk that outlives its VM: a file of ours that is given up when the disk is
//! full, so that the sandbox can be started all the same.
//!
//! Mounting an overlay makes a directory, and without room for it the overlay is read-only; the names
//! of the host are written at each start, too. Blocks that ext4 keeps for root would not help: what
//! commands write through an overlay is written with the rights of whoever has mounted it.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs, syncfs};

/// The reserve, beside the overlay's directories.
const FILE: &str = "reserve";

/// Its size, bytes: a few blocks for directories, names, and the journal's bookkeeping.
const SIZE: u64 = 256 * 1024;

/// Gives the reserve up if there is little room besides.
pub(super) fn release(scratch: &Path) -> io::Result<()> {
    let disk = statvfs(scratch)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) >= SIZE {
        return Ok(());
    }
    match fs::remove_file(scratch.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        // Blocks are free when that is on the disk, not before.
        _ => Ok(syncfs(File::open(scratch)?)?),
    }
}

/// Takes it, as much of it as there is room for.
pub(super) fn hold(scratch: &Path) -> io::Result<()> {
    let path = scratch.join(FILE);
    if path.exists() {
        return Ok(());
    }
    match fallocate(File::create(path)?, FallocateFlags::empty(), 0, SIZE) {
        Err(rustix::io::Errno::NOSPC) => Ok(()),
        outcome => Ok(outcome?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_disk_with_room_keeps_its_reserve() {
        let disk = std::env::temp_dir().join(format!("matchlock-reserve-{}", std::process::id()));
        fs::create_dir(&disk).unwrap();
        hold(&disk).unwrap();
        let reserve = fs::metadata(disk.join(FILE)).unwrap();
        assert!(reserve.blocks() * 512 >= SIZE, "it takes room");
        release(&disk).unwrap();
        hold(&disk).unwrap();
        assert_eq!(fs::metadata(disk.join(FILE)).unwrap().ino(), reserve.ino());
        fs::remove_dir_all(disk).unwrap();
    }
}
