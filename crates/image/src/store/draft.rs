//! Files on their way into the store. A draft has no name, so that whatever ends the process, the
//! kernel takes it away; publishing gives it its name in one step, after `fsync`.
//!
//! Where the file system has no nameless files, and for the instant between getting a name and
//! being moved to its place, a draft is a file in `tmp/` that is locked as long as somebody makes
//! it. A file there without a lock is a leftover, for [`sweep`].

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// Drafts are private; what is published is never changed again.
const DRAFT_MODE: u32 = 0o600;
const PUBLISHED_MODE: u32 = 0o400;

/// A file being made.
#[derive(Debug)]
pub(crate) struct Draft {
    file: File,
    tmp: PathBuf,
    /// Its name in `tmp`, where it had to have one; removed on drop.
    name: Option<Leftover>,
}

/// A name in `tmp/` that goes when its owner goes.
#[derive(Debug)]
struct Leftover(PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        // It was moved to its place, or somebody swept it: gone either way.
        let _ = fs::remove_file(&self.0);
    }
}

impl Draft {
    /// An empty file beside the store's others, in the folder `tmp`.
    pub(crate) fn create(tmp: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(tmp, flags, Mode::from_raw_mode(DRAFT_MODE)) {
            Ok(fd) => Ok(Self { file: fd.into(), tmp: tmp.to_owned(), name: None }),
            // Not every file system can: NFS and FUSE, for example.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Self::create_named(tmp),
            Err(error) => Err(error.into()),
        }
    }

    fn create_named(tmp: &Path) -> io::Result<Self> {
        loop {
            let path = unused_name(tmp);
            let mut options = File::options();
            options.read(true).write(true).create_new(true).mode(DRAFT_MODE);
            match options.open(&path) {
                Ok(file) => {
                    file.lock_shared()?;
                    // A sweep may have come between creating and locking.
                    if file.metadata()?.nlink() > 0 {
                        return Ok(Self { file, tmp: tmp.to_owned(), name: Some(Leftover(path)) });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The file, readable and writable.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Only the file: it will never be published, and goes when it is closed.
    pub(crate) fn into_file(self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Writes it through to the disk and makes it `path`, replacing what was there in one step.
    pub(crate) fn publish(self, path: &Path) -> io::Result<()> {
        self.file.set_permissions(fs::Permissions::from_mode(PUBLISHED_MODE))?;
        self.file.sync_all()?;
        let name = match self.name {
            Some(name) => name,
            None => {
                self.file.lock_shared()?;
                link(&self.file, &self.tmp)?
            }
        };
        fs::rename(&name.0, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

/// Gives a nameless file a name in `tmp`.
fn link(file: &File, tmp: &Path) -> io::Result<Leftover> {
    // open(2), O_TMPFILE: through /proc this needs no capability.
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    loop {
        let path = unused_name(tmp);
        match rustix::fs::linkat(CWD, nameless.as_str(), CWD, &path, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => return Ok(Leftover(path)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A name that nobody else in this process uses; another's makes the caller try the next.
fn unused_name(tmp: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    tmp.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Removes what killed processes left in `tmp`; returns the number of files and their bytes.
pub(crate) fn sweep(tmp: &Path) -> io::Result<(u64, u64)> {
    let mut swept = (0, 0);
    for entry in fs::read_dir(tmp)? {
        let path = entry?.path();
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
            assert_eq!(sweep(&tmp).unwrap(), (0, 0), "somebody is at it");
            draft.publish(&place).unwrap();
            assert_eq!(fs::read(&place).unwrap(), b"new");
            assert_eq!(names(&tmp), 0);
            drop(create(&tmp).unwrap());
            assert_eq!(names(&tmp), 0);
        }
    }

    #[test]
    fn a_sweep_takes_what_nobody_holds() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("1-0"), vec![1; 10_000]).unwrap();
        let held = Draft::create_named(tmp.path()).unwrap();
        let (files, bytes) = sweep(tmp.path()).unwrap();
        assert_eq!(files, 1);
        assert!(bytes >= 10_000);
        assert_eq!(names(tmp.path()), 1);
        drop(held);
        assert_eq!(names(tmp.path()), 0);
    }
}
