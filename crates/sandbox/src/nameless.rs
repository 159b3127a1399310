//! Files that have no name until they are whole: whatever ends the process before that, the kernel
//! takes them away.
//!
//! Where the file system has no such files (overlayfs before Linux 6.3, NFS, FUSE), a draft has a name
//! that nobody looks for, and is locked as long as somebody makes it. One without a lock is a leftover,
//! which goes when the next is made.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::random::random;

/// How the names of drafts begin, where they have one.
const PREFIX: &str = ".draft-";

/// A file being made, only for this user.
#[derive(Debug)]
pub(crate) struct Draft {
    file: File,
    name: Option<Name>,
}

/// A name that goes with its owner.
#[derive(Debug)]
struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        // Somebody may have tidied up.
        let _ = fs::remove_file(&self.0);
    }
}

impl Draft {
    /// An empty one on the file system of `directory`.
    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Self { file: file.into(), name: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Self::create_named(directory),
            Err(error) => Err(error.into()),
        }
    }

    fn create_named(directory: &Path) -> io::Result<Self> {
        sweep(directory)?;
        loop {
            let path = directory.join(format!("{PREFIX}{:016x}", u64::from_ne_bytes(random()?)));
            let mut options = File::options();
            let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            file.lock()?;
            // Between making and locking it may have been taken for a leftover.
            if fs::symlink_metadata(&path).is_ok() {
                return Ok(Self { file, name: Some(Name(path)) });
            }
        }
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Only the file, which goes when it is closed.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    /// Writes it through to the disk and names it `path`, on the same file system, unless something has
    /// that name already.
    pub(crate) fn publish(self, path: &Path) -> io::Result<File> {
        self.file.sync_all()?;
        match &self.name {
            Some(Name(name)) => rustix::fs::linkat(CWD, name, CWD, path, AtFlags::empty())?,
            None => {
                // open(2), O_TMPFILE: through /proc this needs no capability.
                let nameless = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                rustix::fs::linkat(CWD, nameless.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW)?;
            }
        }
        drop(self.name);
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
        Ok(self.file)
    }
}

/// Removes the drafts of those who were killed.
fn sweep(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        // It may be gone, or not be ours to remove.
        if File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_seen_when_it_is_whole_and_never_replaces_another() {
        for create in [Draft::create, Draft::create_named] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("name");
            let draft = create(directory.path()).unwrap();
            draft.file().write_all(b"whole").unwrap();
            assert!(!path.exists());
            let _file = draft.publish(&path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"whole");
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);

            let second = create(directory.path()).unwrap();
            assert_eq!(second.publish(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            let mut file = create(directory.path()).unwrap().into_file();
            file.write_all(b"of no name").unwrap();
            assert_eq!(directory.path().read_dir().unwrap().count(), 1);
        }
    }

    #[test]
    fn where_a_draft_needs_a_name_it_goes_with_its_maker_or_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let count = || directory.path().read_dir().unwrap().count();
        File::create(directory.path().join(".draft-of-a-killed-process")).unwrap();
        let draft = Draft::create_named(directory.path()).unwrap();
        assert_eq!(count(), 1, "the leftover is gone");
        let other = Draft::create_named(directory.path()).unwrap();
        assert_eq!(count(), 2, "one that is being made is not");
        drop((draft, other));
        assert_eq!(count(), 0);
    }
}
