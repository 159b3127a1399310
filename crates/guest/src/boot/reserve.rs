//! A reserve on a scratch disk that outlives its VM: files of ours that are given up when the disk is
//! full, so that the sandbox can be started all the same.
//!
//! Mounting an overlay makes directories and files, and without room for them the overlay is read-only or
//! not mounted at all; the names of the host are written at each start, too. A disk can be out of blocks or
//! out of inodes. Blocks that ext4 keeps for root would not help: what commands write through an overlay is
//! written with the rights of whoever has mounted it.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, statvfs, syncfs};

/// The blocks, beside the overlay's directories.
const BLOCKS: &str = "reserve";

/// Their size, bytes: a few for directories, names, and the journal's bookkeeping.
const SIZE: u64 = 256 * 1024;

/// The inodes, as empty files named `reserve-0` and so on: for the overlay's working directory, what it
/// tries out there, and the names.
const INODES: u64 = 16;

/// Gives up what there is little of besides.
pub(super) fn release(scratch: &Path) -> io::Result<()> {
    let disk = statvfs(scratch)?;
    let given_up = needed(disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_ffree);
    if given_up.is_empty() {
        return Ok(());
    }
    for name in given_up {
        match fs::remove_file(scratch.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    // Blocks are free when that is on the disk, not before.
    Ok(syncfs(File::open(scratch)?)?)
}

/// Takes the reserve, as much of it as there is room for.
pub(super) fn hold(scratch: &Path) -> io::Result<()> {
    match try_hold(scratch) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        outcome => outcome,
    }
}

fn try_hold(scratch: &Path) -> io::Result<()> {
    let make = |name: &str| File::options().write(true).create(true).truncate(false).open(scratch.join(name));
    let blocks = make(BLOCKS)?;
    for name in inodes() {
        make(&name)?;
    }
    Ok(fallocate(blocks, FallocateFlags::empty(), 0, SIZE)?)
}

/// What of the reserve is needed on a disk with so much room besides.
fn needed(free_bytes: u64, free_inodes: u64) -> Vec<String> {
    let mut names = Vec::new();
    if free_bytes < SIZE {
        names.push(BLOCKS.to_owned());
    }
    if free_inodes < INODES {
        names.extend(inodes());
    }
    names
}

fn inodes() -> impl Iterator<Item = String> {
    (0..INODES).map(|number| format!("{BLOCKS}-{number}"))
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
        assert_eq!(fs::read_dir(&disk).unwrap().count() as u64, 1 + INODES);
        let reserve = fs::metadata(disk.join(BLOCKS)).unwrap();
        assert!(reserve.blocks() * 512 >= SIZE, "it takes room");
        release(&disk).unwrap();
        hold(&disk).unwrap();
        assert_eq!(fs::metadata(disk.join(BLOCKS)).unwrap().ino(), reserve.ino());
        fs::remove_dir_all(disk).unwrap();
    }

    #[test]
    fn what_is_given_up_is_what_the_disk_has_run_out_of() {
        assert!(needed(SIZE, INODES).is_empty());
        assert_eq!(needed(SIZE - 1, INODES), [BLOCKS]);
        assert_eq!(needed(u64::MAX, INODES - 1).len() as u64, INODES);
        assert!(!needed(u64::MAX, 0).contains(&BLOCKS.to_owned()));
        assert_eq!(needed(0, 0).len() as u64, 1 + INODES);
    }
}
