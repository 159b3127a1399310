//! Scratch disks as files; the oracle is e2fsck.

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
        let disk = create(directory.path(), Blank::begin(size).unwrap()).unwrap();
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
    let error = create(Path::new("/nonexistent"), Blank::begin(64).unwrap()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("/nonexistent"));
}

#[test]
fn a_kept_disk_has_a_name_and_one_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scratch.ext4");
    assert_eq!(open_named(&path).unwrap_err().kind(), Kind::NotFound);
    let disk = create_named(&path, Blank::begin(MIN_DISK_MB).unwrap()).unwrap();
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
    assert_eq!(open_named(&path).unwrap_err().kind(), Kind::Conflict);
    let inherited = disk.try_clone().unwrap();
    drop(disk);
    assert_eq!(open_named(&path).unwrap_err().kind(), Kind::Conflict, "the lock is the VMM's, too");
    drop(inherited);
    let again = open_named(&path).unwrap();
    let error = create_named(&path, Blank::begin(MIN_DISK_MB).unwrap()).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert_eq!(ext4::content(&again).unwrap(), ext4::Content::Clean, "what was there is not touched");
    assert_eq!(directory.path().read_dir().unwrap().count(), 1);
}
