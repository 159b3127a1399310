//! Volumes on the file system of the tests; the oracle for what is in them is e2fsprogs.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::process::Command;

use api::{Explain as _, Kind};

use super::*;

struct Home {
    directory: tempfile::TempDir,
    volumes: Volumes,
}

fn home() -> Home {
    let directory = tempfile::tempdir().unwrap();
    let volumes = Volumes::new(directory.path());
    Home { directory, volumes }
}

fn named(name: &str) -> VolumeName {
    name.parse().unwrap()
}

fn files(home: &Home) -> usize {
    fs::read_dir(home.directory.path().join("volumes")).map_or(0, Iterator::count)
}

fn e2fsck(path: &Path) {
    let check = Command::new("e2fsck").args(["-f", "-n"]).arg(path).output();
    let check = check.expect("e2fsck is needed: apt install e2fsprogs");
    assert!(check.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&check.stdout));
}

#[test]
fn volumes_are_whole_sparse_and_private() {
    let home = home();
    assert_eq!(home.volumes.list().unwrap(), []);
    for (name, size) in [("small", MIN_VOLUME_MB), ("default", 10240), ("large", 1 << 17)] {
        let volume = home.volumes.create(&named(name), size).unwrap();
        assert_eq!(volume.size, size << 20);
        assert!(volume.taken < (size << 20) / 20 + (8 << 20), "{} bytes taken", volume.taken);
        assert_eq!(volume.path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        e2fsck(&volume.path);
    }
    let directory = home.directory.path().join("volumes");
    assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    let listed = home.volumes.list().unwrap();
    let names: Vec<_> = listed.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["default", "large", "small"]);
}

#[test]
fn sizes_have_limits() {
    let home = home();
    for size in [0, MIN_VOLUME_MB - 1, MAX_VOLUME_MB + 1, u64::MAX] {
        let error = home.volumes.create(&named("x"), size).unwrap_err();
        assert!(matches!(error, VolumeError::Size(_)), "{size}: {error}");
    }
    assert_eq!(files(&home), 0);
}

#[test]
fn a_name_is_given_once_however_many_ask_at_the_same_time() {
    let home = home();
    let made = thread::scope(|scope| {
        let makers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| home.volumes.create(&named("one"), MIN_VOLUME_MB))).collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).collect::<Vec<_>>()
    });
    let (made, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), files(&home)), (1, 1));
    for error in refused.into_iter().map(Result::unwrap_err) {
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.to_string().contains("named volume already exists"), "{error}");
    }
    e2fsck(&home.volumes.list().unwrap()[0].path);
}

#[test]
fn what_is_in_use_is_not_removed_and_writers_are_alone() {
    let home = home();
    let data = named("data");
    home.volumes.create(&data, MIN_VOLUME_MB).unwrap();
    let busy = |intent| {
        let error = home.volumes.open(&data, intent).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (Kind::Conflict, "volume data is in use by another sandbox")
        );
    };
    let remove = || home.volumes.remove(&data).unwrap_err().kind();

    let writer = home.volumes.open(&data, Use::Exclusive).unwrap();
    busy(Use::Exclusive);
    busy(Use::Shared);
    assert_eq!(remove(), Kind::Conflict);
    let inherited = writer.try_clone().unwrap();
    drop(writer);
    busy(Use::Shared);
    drop(inherited);

    let (reader, other) =
        (home.volumes.open(&data, Use::Shared).unwrap(), home.volumes.open(&data, Use::Shared).unwrap());
    busy(Use::Exclusive);
    assert_eq!(remove(), Kind::Conflict);
    drop((reader, other));
    home.volumes.remove(&data).unwrap();
    assert!(matches!(home.volumes.remove(&data).unwrap_err(), VolumeError::NotFound(_)));
    let error = home.volumes.open(&data, Use::Shared).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NotFound, "named volume not found: data"));
    assert_eq!(files(&home), 0);
}

/// A copy of a volume with data at its beginning and its end.
#[test]
fn a_copy_is_the_same_and_as_sparse() {
    let home = home();
    let volume = home.volumes.create(&named("a"), 1024).unwrap();
    let file = File::options().write(true).open(&volume.path).unwrap();
    file.write_all_at(&vec![7; 3 << 20], 1 << 29).unwrap();
    file.write_all_at(b"end", volume.size - 3).unwrap();
    let mut told = Vec::new();
    let copy = home
        .volumes
        .copy(&named("a"), &named("b"), &Cancel::default(), &mut |done, total| told.push((done, total)))
        .unwrap();
    assert!(told.iter().all(|(done, total)| done <= total), "{told:?}");
    assert!(copy.taken < 100 << 20, "{}", copy.taken);
    let same = Command::new("cmp").arg(&volume.path).arg(&copy.path).status().unwrap();
    assert!(same.success());
}

#[test]
fn a_copy_that_cannot_be_whole_is_none() {
    let home = home();
    let (a, b) = (named("a"), named("b"));
    let copy =
        |to: &VolumeName, cancel: &Cancel| home.volumes.copy(&a, to, cancel, &mut |_, _| {}).unwrap_err();
    assert!(matches!(copy(&b, &Cancel::default()), VolumeError::NotFound(name) if name == a));
    home.volumes.create(&a, MIN_VOLUME_MB).unwrap();
    assert!(matches!(copy(&a, &Cancel::default()), VolumeError::Exists(name) if name == a));
    let cancelled = Cancel::default();
    cancelled.cancel();
    assert_eq!(copy(&b, &cancelled).kind(), Kind::Interrupted);
    let writer = home.volumes.open(&a, Use::Exclusive).unwrap();
    assert!(matches!(copy(&b, &Cancel::default()), VolumeError::Busy(name) if name == a));
    drop(writer);
    let reader = home.volumes.open(&a, Use::Shared).unwrap();
    home.volumes.copy(&a, &b, &Cancel::default(), &mut |_, _| {}).unwrap();
    drop(reader);
    assert_eq!(files(&home), 2);
}

#[test]
fn what_else_lies_there_is_no_volume() {
    let home = home();
    home.volumes.create(&named("real"), MIN_VOLUME_MB).unwrap();
    let directory = home.directory.path().join("volumes");
    fs::write(directory.join("note.txt"), "").unwrap();
    fs::write(directory.join(".hidden.ext4"), "").unwrap();
    fs::create_dir(directory.join("folder.ext4")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, directory.join("pipe.ext4"), rustix::fs::Mode::RUSR).unwrap();
    symlink("nowhere", directory.join("dangling.ext4")).unwrap();
    let listed: Vec<_> = home.volumes.list().unwrap().into_iter().map(|volume| volume.name).collect();
    assert_eq!(listed, [named("real")]);
    for name in ["folder", "pipe"] {
        let error = home.volumes.open(&named(name), Use::Shared).unwrap_err();
        assert!(matches!(error, VolumeError::NotAFile(_)), "{name}: {error}");
    }
    assert!(matches!(home.volumes.create(&named("dangling"), 16).unwrap_err(), VolumeError::Exists(_)));
}
