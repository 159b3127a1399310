//! Hostile roots, as an image could have them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::open;

use super::*;

struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("matchlock-beneath-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("root")).unwrap();
        Self(path)
    }

    fn path(&self) -> PathBuf {
        self.0.join("root")
    }

    fn fd(&self) -> OwnedFd {
        open(self.path(), DIRECTORY, Mode::empty()).unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn is_real_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).unwrap().is_dir()
}

#[test]
fn a_link_or_file_where_a_mount_point_belongs_is_replaced() {
    let root = Root::new("mount");
    fs::create_dir(root.0.join("outside")).unwrap();
    symlink(root.0.join("outside"), root.path().join("proc")).unwrap();
    symlink("sys", root.path().join("sys")).unwrap();
    fs::write(root.path().join("dev"), "").unwrap();
    for name in ["proc", "sys", "dev", "missing"] {
        directory(root.fd(), name, 0o755).unwrap();
        assert!(is_real_directory(&root.path().join(name)), "{name}");
    }
    assert!(root.0.join("outside").exists());
}

#[test]
fn a_linked_etc_is_found_below_the_root_only() {
    let root = Root::new("etc");
    fs::create_dir_all(root.path().join("usr/etc")).unwrap();
    symlink("/usr/etc", root.path().join("etc")).unwrap();
    let etc = linked_directory(root.fd(), "etc", 0o755).unwrap();
    replace_file(&etc, "hosts", b"x").unwrap();
    assert_eq!(fs::read(root.path().join("usr/etc/hosts")).unwrap(), b"x");

    fs::create_dir(root.0.join("outside")).unwrap();
    symlink("../../outside", root.path().join("run")).unwrap();
    linked_directory(root.fd(), "run", 0o755).unwrap();
    assert!(is_real_directory(&root.path().join("run")), "a link out of the root leads nowhere");
}

#[test]
fn a_file_is_written_in_place_of_a_link_not_through_it() {
    let root = Root::new("file");
    fs::write(root.0.join("victim"), "kept").unwrap();
    symlink(root.0.join("victim"), root.path().join("resolv.conf")).unwrap();
    replace_file(root.fd(), "resolv.conf", b"nameserver 8.8.8.8\n").unwrap();
    assert_eq!(fs::read(root.0.join("victim")).unwrap(), b"kept");
    assert_eq!(fs::read(root.path().join("resolv.conf")).unwrap(), b"nameserver 8.8.8.8\n");
    fs::create_dir(root.path().join("hosts")).unwrap();
    assert!(replace_file(root.fd(), "hosts", b"").is_err(), "a directory is not a file to replace");
}

#[test]
fn a_deep_directory_is_made_where_links_lead_and_never_outside() {
    let root = Root::new("deep");
    fs::create_dir_all(root.path().join("usr/lib")).unwrap();
    symlink("usr/lib", root.path().join("lib")).unwrap();
    symlink("/lib", root.path().join("absolute")).unwrap();
    deep_directory(root.fd(), "absolute/a/b", 0o755).unwrap();
    assert!(is_real_directory(&root.path().join("usr/lib/a/b")));
    deep_directory(root.fd(), "absolute/a/b", 0o755).unwrap();

    fs::create_dir(root.0.join("outside")).unwrap();
    symlink("../../outside", root.path().join("up")).unwrap();
    symlink(root.0.join("outside"), root.path().join("away")).unwrap();
    for link in ["up/x", "away/x"] {
        assert!(deep_directory(root.fd(), link, 0o755).is_err(), "{link}");
    }
    assert_eq!(fs::read_dir(root.0.join("outside")).unwrap().count(), 0);
}

#[test]
fn what_is_there_is_never_replaced_by_a_deep_directory() {
    let root = Root::new("kept");
    fs::write(root.path().join("file"), "kept").unwrap();
    symlink("nowhere", root.path().join("dangling")).unwrap();
    for path in ["file", "file/x", "dangling", "dangling/x"] {
        assert!(deep_directory(root.fd(), path, 0o755).is_err(), "{path}");
    }
    assert_eq!(fs::read(root.path().join("file")).unwrap(), b"kept");
    assert!(fs::symlink_metadata(root.path().join("dangling")).unwrap().is_symlink());
}
