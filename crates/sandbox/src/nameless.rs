//! Files that have no name until they are whole: whatever ends the process before that, the kernel
//! takes them away.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

/// An empty file on the file system of `directory`, only for this user.
pub(crate) fn create(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Writes it through to the disk and names it `path`, on the same file system, unless something has
/// that name already.
pub(crate) fn publish(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    // open(2), O_TMPFILE: through /proc this needs no capability.
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, nameless.as_str(), CWD, path, AtFlags::SYMLINK_FOLLOW)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_seen_when_it_is_whole_and_never_replaces_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("name");
        let mut file = create(directory.path()).unwrap();
        file.write_all(b"whole").unwrap();
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        publish(&file, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);

        let second = create(directory.path()).unwrap();
        assert_eq!(publish(&second, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(second);
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }
}
