//! Caches for the binary under test. Kernels are taken from the user's cache: a build takes
//! minutes. Images are imported by the binary under test, once for each build of it, under a lock,
//! since every test file is a process of its own.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::Running;
use crate::tool;

/// Debian with Python 3.
pub const DEBIAN_PYTHON: &str = "debian-python";
/// A static busybox with its links; users root and `user` (1000).
pub const BUSYBOX: &str = "busybox";
/// One static program, `/busybox`, and no other file.
pub const SCRATCH: &str = "scratch";
/// Debian with the network clients that people use; no part of [`shared`] until asked for.
pub const CLIENTS: &str = "clients";
/// A busybox and a Go program, with Alpine's trust store; no part of [`shared`] until asked for.
pub const ALPINE_LAYOUT: &str = "alpine-layout";
/// The same with Fedora's.
pub const FEDORA_LAYOUT: &str = "fedora-layout";

/// How long the import of one image may take on a busy machine.
const IMPORT_LIMIT: Duration = Duration::from_secs(180);

/// A cache that holds the user's kernels and the three images; shared by all tests, so a test must
/// not remove anything from it.
///
/// # Panics
/// When there is no kernel, or an image cannot be made or imported.
#[must_use]
pub fn shared(binary: &Path) -> &'static Path {
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    SHARED.get_or_init(|| {
        let base = target_directory();
        let _lock = lock(&base);
        let tars = [DEBIAN_PYTHON, BUSYBOX, SCRATCH].map(|name| (name, tar(name)));
        let (cache, stamp) = (base.join("e2e-cache"), base.join("e2e-cache.stamp"));
        let wanted = format!("{} {tars:?}", fingerprint(binary));
        if fs::read_to_string(&stamp).is_ok_and(|made_for| made_for == wanted) {
            return cache;
        }
        remove(&stamp, fs::remove_file(&stamp));
        remove(&cache, fs::remove_dir_all(&cache));
        fill_with_kernels(&cache);
        for (name, tar) in &tars {
            import(binary, &cache, name, tar);
        }
        fs::write(&stamp, wanted).expect("the target directory is ours");
        cache
    })
}

/// Adds images to the cache that [`shared`] gives, unless they are in it.
///
/// # Panics
/// When one cannot be made or imported.
pub fn import_further(binary: &Path, names: &[&str]) {
    let cache = shared(binary);
    let base = target_directory();
    let _lock = lock(&base);
    // Another cache is another stamp.
    let of_cache = fs::read_to_string(base.join("e2e-cache.stamp")).expect("the cache is made");
    for name in names {
        let (tar, stamp) = (tar(name), base.join(format!("e2e-cache.{name}.stamp")));
        let wanted = format!("{of_cache} {}", tar.display());
        if fs::read_to_string(&stamp).is_ok_and(|made_for| made_for == wanted) {
            continue;
        }
        import(binary, cache, name, &tar);
        fs::write(&stamp, wanted).expect("the target directory is ours");
    }
}

/// Where the tests' own programs are.
fn target_directory() -> PathBuf {
    let tests = std::env::current_exe().expect("a test knows its own path");
    tests.parent().expect("a test lies in the target directory").to_owned()
}

/// Held by whoever changes the cache in `base`.
fn lock(base: &Path) -> File {
    let lock = File::create(base.join("e2e-cache.lock")).expect("the target directory is ours");
    lock.lock().expect("locks work in the target directory");
    lock
}

/// Puts the user's kernels into a new cache, as links: the user's stay if a test removes them.
///
/// # Panics
/// When the user has none.
pub fn fill_with_kernels(cache: &Path) {
    let kernels = tool::user_cache().join("kernels");
    let linked = link_tree(&kernels, &cache.join("kernels"));
    let any = linked.unwrap_or_else(|error| panic!("cannot link {}: {error}", kernels.display()));
    let overridden =
        ["MATCHLOCK_KERNEL", "SANDBOX_KERNEL"].iter().any(|name| std::env::var_os(name).is_some());
    assert!(any || overridden, "no kernel in {}: run `matchlock kernel build`", kernels.display());
}

/// The root file system of an image, as a tar.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn tar(image: &str) -> PathBuf {
    let script = tool::source_tree().join("scripts/make-image");
    let output = Command::new(script).arg(image).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.expect("scripts/make-image runs");
    assert!(output.status.success(), "scripts/make-image {image} failed");
    PathBuf::from(String::from_utf8(output.stdout).expect("paths here are UTF-8").trim_end())
}

/// Makes directories like those of `from` in `to`, with links to its files; whether there were any.
fn link_tree(from: &Path, to: &Path) -> io::Result<bool> {
    fs::create_dir_all(to)?;
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    let mut any = false;
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            any |= link_tree(&entry.path(), &target)?;
        } else {
            symlink(entry.path(), target)?;
            any = true;
        }
    }
    Ok(any)
}

fn import(binary: &Path, cache: &Path, name: &str, tar: &Path) {
    let mut command = Command::new(binary);
    let home = tempfile::tempdir().expect("a temporary directory");
    command.args(["image", "import", name]).env("MATCHLOCK_CACHE", cache).env("MATCHLOCK_HOME", home.path());
    command.stdin(File::open(tar).expect("scripts/make-image made it"));
    let _ = Running::start(&mut command, IMPORT_LIMIT).wait().success();
}

/// Tells one build of the binary from another.
fn fingerprint(binary: &Path) -> String {
    let metadata = fs::metadata(binary).expect("the binary was found");
    format!("{} {} {}.{}", binary.display(), metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

/// What is not there is removed.
fn remove(path: &Path, result: io::Result<()>) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            panic!("cannot remove {}: {error}", path.display())
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_removed_without_their_targets() {
        let base = tempfile::tempdir().unwrap();
        let (user, ours) = (base.path().join("user"), base.path().join("ours"));
        assert!(!link_tree(&user, &ours).unwrap());
        fs::create_dir_all(user.join("6.12")).unwrap();
        fs::write(user.join("6.12/vmlinux"), "kernel").unwrap();
        assert!(link_tree(&user, &ours).unwrap());
        assert_eq!(fs::read(ours.join("6.12/vmlinux")).unwrap(), b"kernel");
        fs::remove_dir_all(&ours).unwrap();
        assert!(user.join("6.12/vmlinux").exists());
    }
}
