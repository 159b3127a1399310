//! Which disks are attached and which are refused, before any VM.

use std::process::Command;
use std::time::Duration;

use super::*;

struct Place {
    directory: tempfile::TempDir,
    volumes: Volumes,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let volumes = Volumes::new(directory.path());
    volumes.create(&"data".parse().unwrap(), 16).unwrap();
    Place { directory, volumes }
}

impl Place {
    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// A disk of the user's own.
    fn disk(&self, name: &str) -> String {
        let path = self.path(name);
        File::create(&path).unwrap().set_len(16 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", &path]).status();
        assert!(made.expect("mkfs.ext4 is needed: apt install e2fsprogs").success());
        path
    }

    fn attach(&self, disks: &[&str]) -> Result<Vec<Attached>, DiskError> {
        let specs: Vec<DiskSpec> = disks.iter().map(|disk| disk.parse().unwrap()).collect();
        attach(&specs, &self.volumes)
    }

    fn refused(&self, disks: &[&str]) -> DiskError {
        self.attach(disks).unwrap_err()
    }
}

#[test]
fn disks_are_attached_in_order_with_what_the_guest_is_told() {
    let place = place();
    let own = place.disk("own:disk.ext4");
    let attached = place.attach(&["@data:/data", &format!("{own}:/own:ro")]).unwrap();
    let seen: Vec<_> = attached.iter().map(|it| (it.disk.access, it.mount.clone())).collect();
    let mount = |serial: &str, target: &str, read_only| Mount {
        serial: serial.into(),
        target: target.into(),
        read_only,
    };
    assert_eq!(
        seen,
        [(Access::Durable, mount("disk0", "/data", false)), (Access::ReadOnly, mount("disk1", "/own", true))]
    );
}

#[test]
fn a_disk_in_use_is_refused_by_whatever_name() {
    let place = place();
    let held = place.attach(&["@data:/data"]).unwrap();
    let error = place.refused(&["@data:/data:ro"]);
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (Kind::Conflict, "volume data is in use by another sandbox")
    );
    assert!(error.hint().unwrap().contains(":ro"));
    let path = place.path("volumes/data.ext4");
    assert!(matches!(place.refused(&[&format!("{path}:/data")]), DiskError::Busy(_)));
    // Whoever is just letting go of it is waited for.
    let letting_go = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(held);
    });
    drop(place.attach(&["@data:/data"]).unwrap());
    letting_go.join().unwrap();
    let readers = [place.attach(&["@data:/a:ro"]).unwrap(), place.attach(&["@data:/a:ro"]).unwrap()];
    assert_eq!(place.refused(&["@data:/data"]).kind(), Kind::Conflict);
    drop(readers);
    place.attach(&["@data:/data"]).unwrap();
}

#[test]
fn nothing_is_attached_twice_or_over_another() {
    let place = place();
    let path = place.path("volumes/data.ext4");
    assert!(matches!(place.refused(&["@data:/a", "@data:/b"]), DiskError::Twice(_)));
    assert!(matches!(place.refused(&["@data:/a:ro", &format!("{path}:/b")]), DiskError::Twice(_)));
    assert!(matches!(place.refused(&["@data:/a:ro", "@data:/a/:ro"]), DiskError::SamePlace(_)));
    assert_eq!(place.attach(&["@data:/a:ro", "@data:/b:ro"]).unwrap().len(), 2);
    place.attach(&["@data:/data"]).unwrap();
}

#[test]
fn only_files_with_an_ext4_file_system_are_attached() {
    let place = place();
    let file = |name: &str, length: u64| {
        File::create(place.path(name)).unwrap().set_len(length).unwrap();
        place.path(name)
    };
    for (name, length) in [("empty", 0), ("short", 511), ("zeros", 1 << 20)] {
        let error = place.refused(&[&format!("{}:/mnt", file(name, length))]);
        assert!(error.to_string().ends_with("is not an ext4 file system"), "{error}");
        assert!(error.hint().unwrap().contains("mkfs.ext4"));
    }
    let odd = place.disk("odd");
    File::options().write(true).open(&odd).unwrap().set_len((16 << 20) + 1).unwrap();
    assert!(matches!(place.refused(&[&format!("{odd}:/mnt")]), DiskError::Size { .. }));

    let pipe = place.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    for other in [pipe.as_str(), "/dev/null", "/"] {
        assert!(matches!(place.refused(&[&format!("{other}:/mnt")]), DiskError::NotAFile(_)), "{other}");
    }
    let error = place.refused(&["/nonexistent/disk:/mnt"]);
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hint().unwrap().contains("mkfs.ext4 /nonexistent/disk"));
    assert_eq!(place.refused(&["@missing:/mnt"]).kind(), Kind::NotFound);
}

#[test]
fn a_journal_that_must_be_recovered_is_not_left_to_a_reader() {
    let place = place();
    let path = place.disk("crashed");
    let crashed = Command::new("debugfs").args(["-w", "-R", "feature needs_recovery", &path]).output();
    assert!(crashed.unwrap().status.success());
    let error = place.refused(&[&format!("{path}:/mnt:ro")]);
    assert!(matches!(error, DiskError::Unrecovered(_)) && error.hint().unwrap().contains("without :ro"));
    place.attach(&[&format!("{path}:/mnt")]).unwrap();
}
