//! The Unix socket of a sandbox: where its owner listens and clients connect.
//!
//! The directory is opened first and the socket reached through `/proc/self/fd`, so that its path
//! may be longer than the 108 bytes of a `sockaddr_un`, and nobody can exchange the directory
//! between the check and the use. Only the owner's user gets in: by the directory's permissions, by
//! the socket's, and by the peer's credentials on both sides.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Uid, geteuid};
use tokio::net::{UnixListener, UnixStream};

/// A directory that is open; its entries have short paths.
struct Directory(File);

impl Directory {
    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?.into()))
    }

    /// Fails unless it is ours alone.
    fn check(&self) -> io::Result<()> {
        let metadata = self.0.metadata()?;
        if metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
            let message = "the directory of the socket is open to other users";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()).into()
    }
}

/// Listens on the socket `name` in `dir`, which must be its owner's alone (0700). A socket that is
/// there is replaced: the caller knows that its owner is gone.
///
/// # Errors
/// Those of the file system; [`io::ErrorKind::PermissionDenied`] if other users can enter `dir`.
pub fn bind(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let dir = Directory::open(dir)?;
    dir.check()?;
    let path = dir.entry(name);
    if fs::symlink_metadata(&path).is_ok_and(|old| old.file_type().is_socket()) {
        fs::remove_file(&path)?;
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to the socket `name` in `dir`.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] or [`io::ErrorKind::ConnectionRefused`] if nobody listens;
/// [`io::ErrorKind::PermissionDenied`] if the socket is another user's.
pub async fn connect(dir: &Path, name: &str) -> io::Result<UnixStream> {
    let dir = Directory::open(dir)?;
    let stream = UnixStream::connect(dir.entry(name)).await?;
    check_peer(&stream, geteuid())?;
    Ok(stream)
}

/// Fails unless this user is at the other end.
pub(crate) fn check_peer(stream: &UnixStream, user: Uid) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != user.as_raw() {
        let message = format!("the other end of the socket is user {peer}'s, not {}'s", user.as_raw());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}
