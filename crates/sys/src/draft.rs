//! Files that are being made. A draft has no name, so that whatever ends the process, the kernel takes
//! it away (`O_TMPFILE`, `open(2)`); publishing gives it its name in one step, after `fsync`.
//!
//! Where the file system has no nameless files (overlayfs before Linux 6.3, NFS, FUSE), and for the
//! instant between getting a name and being moved to its place, a draft is a file that is locked as long
//! as somebody makes it. One without a lock is a leftover, for [`sweep`].

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// Drafts are private.
const MODE: u32 = 0o600;

/// How their names begin, where they have one.
const PREFIX: &str = ".draft-";

/// A file being made.
#[derive(Debug)]
pub struct Draft {
    file: File,
    directory: PathBuf,
    /// Its name, where it had to have one; removed on drop.
    name: Option<Leftover>,
}

/// A name that goes when its owner goes.
#[derive(Debug)]
struct Leftover(PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        // It was moved to its place, or somebody swept it: gone either way.
        let _ = fs::remove_file(&self.0);
    }
}

impl Draft {
    /// An empty file on the file system of `directory`, only for this user.
    ///
    /// # Errors
    /// When it cannot be made there.
    pub fn create(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(directory, flags, Mode::from_raw_mode(MODE)) {
            Ok(fd) => Ok(Self { file: fd.into(), directory: directory.to_owned(), name: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Self::create_named(directory),
            Err(error) => Err(error.into()),
        }
    }

    fn create_named(directory: &Path) -> io::Result<Self> {
        loop {
            let path = unused_name(directory);
            let mut options = File::options();
            options.read(true).write(true).create_new(true).mode(MODE);
            match options.open(&path) {
                Ok(file) => {
                    file.lock_shared()?;
                    // A sweep may have come between creating and locking.
                    if file.metadata()?.nlink() > 0 {
                        let directory = directory.to_owned();
                        return Ok(Self { file, directory, name: Some(Leftover(path)) });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The file, readable and writable.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Only the file: it will never be published, and goes when it is closed.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }

    /// Writes it through to the disk and names it `path`, on the same file system, unless something has
    /// that name already. The file may be locked; it stays so.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], or when it cannot be written or named.
    pub fn publish(self, path: &Path) -> io::Result<File> {
        self.file.sync_all()?;
        match &self.name {
            Some(Leftover(name)) => fs::hard_link(name, path)?,
            None => link(&self.file, path)?,
        }
        drop(self.name);
        sync_parent(path)?;
        Ok(self.file)
    }

    /// Writes it through to the disk and makes it `path`, with these permissions, replacing what was there
    /// in one step.
    ///
    /// # Errors
    /// When it cannot be written or named.
    pub fn replace(self, path: &Path, mode: u32) -> io::Result<()> {
        self.file.set_permissions(fs::Permissions::from_mode(mode))?;
        self.file.sync_all()?;
        let name = match self.name {
            Some(name) => name,
            None => {
                self.file.lock_shared()?;
                link_somewhere(&self.file, &self.directory)?
            }
        };
        fs::rename(&name.0, path)?;
        sync_parent(path)
    }
}

/// Gives a nameless file a name, which nothing may have yet.
fn link(file: &File, path: &Path) -> io::Result<()> {
    // open(2), O_TMPFILE: through /proc this needs no capability.
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, nameless.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

/// Gives a nameless file a draft's name.
fn link_somewhere(file: &File, directory: &Path) -> io::Result<Leftover> {
    loop {
        let path = unused_name(directory);
        match link(file, &path) {
            Ok(()) => return Ok(Leftover(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes a new name outlive a loss of power.
fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// A name that nobody else in this process uses; another's makes the caller try the next.
fn unused_name(directory: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    directory.join(format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Whether that is the name of a draft.
#[must_use]
pub fn is_draft(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

/// Removes what killed processes left in `directory`, of the files whose names `which` knows; returns the
/// number of files and their bytes.
///
/// # Errors
/// When a file cannot be looked at or removed.
pub fn sweep(directory: &Path, which: impl Fn(&OsStr) -> bool) -> io::Result<(u64, u64)> {
    let mut swept = (0, 0);
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !which(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        let file = match File::open(&path) {
            Ok(file) => file,
            // Its owner was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let bytes = file.metadata()?.blocks() * 512;
        match fs::remove_file(&path) {
            Ok(()) => swept = (swept.0 + 1, swept.1 + bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_draft_has_a_name_only_once_published() {
        for create in [Draft::create, Draft::create_named] {
            let folder = tempfile::tempdir().unwrap();
            let tmp = folder.path().join("tmp");
            fs::create_dir(&tmp).unwrap();
            let mut draft = create(&tmp).unwrap();
            draft.file().write_all(b"new").unwrap();
            let place = folder.path().join("place");
            fs::write(&place, "old").unwrap();
            assert_eq!(sweep(&tmp, |_| true).unwrap(), (0, 0), "somebody is at it");
            draft.replace(&place, 0o400).unwrap();
            assert_eq!(fs::read(&place).unwrap(), b"new");
            assert_eq!(names(&tmp), 0);
            drop(create(&tmp).unwrap());
            assert_eq!(names(&tmp), 0);
        }
    }

    #[test]
    fn a_file_is_seen_when_it_is_whole_and_never_replaces_another() {
        for create in [Draft::create, Draft::create_named] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("name");
            let mut draft = create(directory.path()).unwrap();
            draft.file().write_all(b"whole").unwrap();
            assert!(!path.exists());
            let _file = draft.publish(&path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"whole");
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);

            let second = create(directory.path()).unwrap();
            assert_eq!(second.publish(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            let mut file = create(directory.path()).unwrap().into_file();
            file.write_all(b"of no name").unwrap();
            assert_eq!(names(directory.path()), 1);
        }
    }

    #[test]
    fn a_sweep_takes_what_nobody_holds() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("1-0"), vec![1; 10_000]).unwrap();
        let held = Draft::create_named(tmp.path()).unwrap();
        let (files, bytes) = sweep(tmp.path(), |_| true).unwrap();
        assert_eq!(files, 1);
        assert!(bytes >= 10_000);
        assert_eq!(names(tmp.path()), 1);
        drop(held);
        assert_eq!(names(tmp.path()), 0);
    }

    #[test]
    fn a_sweep_for_drafts_takes_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("data.ext4"), "").unwrap();
        fs::write(directory.path().join(".draft-of-a-killed-process"), "").unwrap();
        assert_eq!(sweep(directory.path(), is_draft).unwrap().0, 1, "the leftover is gone");
        let draft = Draft::create_named(directory.path()).unwrap();
        assert_eq!(sweep(directory.path(), is_draft).unwrap().0, 0, "one that is being made is not");
        assert_eq!(names(directory.path()), 2);
        drop(draft);
        assert_eq!(names(directory.path()), 1);
    }
}
