//! Firecracker's two sockets: its API, and the guest's vsock.
//!
//! It binds them itself, so they must have names; but only until we have connected to both. They are in a
//! folder that is known to either side by a descriptor of it, so the length of its path does not matter
//! (108 bytes is the most that an address holds), and that goes as soon as nobody needs it.
//!
//! Vsock over a Unix socket: `docs/vsock.md` of Firecracker. The host connects, says `CONNECT <port>`,
//! and is answered `OK <port>` once something listens there; until then it is hung up on.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::sleep;

use super::configuration::path_of;
use crate::channel::ChannelError;
use crate::machine::Exit;

/// Name of the API's socket in the folder.
pub(super) const API: &str = "api";

/// Name of the guest's.
pub(super) const VSOCK: &str = "vsock";

/// Name of the folder.
const FOLDER: &str = "firecracker";

/// Nobody tells when a socket is there, or when the guest listens: so we try again.
const PAUSE: Duration = Duration::from_millis(1);

/// The longest answer: `OK 4294967295` and a line feed.
const MAX_ANSWER: usize = 14;

/// The folder with the sockets; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    descriptor: File,
}

impl Folder {
    /// Makes it in `directory`, where one may be left of a process that was killed.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FOLDER);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => DirBuilder::new().mode(0o700).create(&path)?,
        }
        let descriptor = File::open(&path)?;
        Ok(Self { path, descriptor })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// For the process that makes the sockets.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.descriptor.try_clone()?.into())
    }

    /// Connects to the API as soon as it is there.
    pub(super) async fn api(&self) -> UnixStream {
        loop {
            match self.connect(API).await {
                Ok(stream) => return stream,
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// A connection to the guest's `port`, as soon as somebody listens there or the machine has ended.
    pub(super) async fn guest(
        self: Arc<Self>,
        port: u32,
        mut exit: watch::Receiver<Option<Exit>>,
    ) -> Result<UnixStream, ChannelError> {
        let connected = async {
            loop {
                match self.try_guest(port).await {
                    Ok(stream) => return stream,
                    Err(_) => sleep(PAUSE).await,
                }
            }
        };
        tokio::select! {
            stream = connected => Ok(stream),
            _ = exit.wait_for(Option::is_some) => Err(ChannelError::Gone),
        }
    }

    async fn try_guest(&self, port: u32) -> io::Result<UnixStream> {
        let mut stream = self.connect(VSOCK).await?;
        stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
        let mut answer = Vec::with_capacity(MAX_ANSWER);
        // What comes after the line feed is the guest's.
        while answer.last() != Some(&b'\n') {
            if answer.len() == MAX_ANSWER {
                return Err(io::ErrorKind::InvalidData.into());
            }
            answer.push(stream.read_u8().await?);
        }
        if answer.starts_with(b"OK ") { Ok(stream) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    async fn connect(&self, name: &str) -> io::Result<UnixStream> {
        UnixStream::connect(path(self.descriptor.as_raw_fd(), name)).await
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "cannot remove the VMM's sockets");
        }
    }
}

/// The path of a socket for whoever has the folder as this descriptor.
pub(super) fn path(folder: RawFd, name: &str) -> String {
    format!("{}/{name}", path_of(folder))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// Firecracker's side of the guest's socket: answers each connection with what `answers` has.
    async fn answered(answers: &[&str]) -> (Result<UnixStream, ChannelError>, usize) {
        let directory = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::new(directory.path()).unwrap());
        let listener = UnixListener::bind(path(folder.descriptor.as_raw_fd(), VSOCK)).unwrap();
        let (_ended, exit) = watch::channel(None);
        let mut count = 0;
        let firecracker = async {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 13];
                stream.read_exact(&mut asked).await.unwrap();
                assert_eq!(&asked, b"CONNECT 5100\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
                count += 1;
            }
            std::future::pending::<()>().await;
        };
        let stream = tokio::select! {
            stream = Arc::clone(&folder).guest(5100, exit) => stream,
            () = firecracker => unreachable!("it waits for ever"),
        };
        drop(folder);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "the folder is gone");
        (stream, count)
    }

    #[tokio::test]
    async fn the_guest_is_called_until_it_listens_and_its_first_bytes_are_kept() {
        let answers = ["", "", "NO\n", "OK 123456789012345\n", "OK 1073741824\nfirst"];
        let (stream, count) = answered(&answers).await;
        let mut first = [0; 5];
        stream.unwrap().read_exact(&mut first).await.unwrap();
        assert_eq!((&first, count), (b"first", 5));
    }

    #[tokio::test]
    async fn a_machine_that_has_ended_is_not_called_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::new(directory.path()).unwrap());
        let (ended, exit) = watch::channel(None);
        let call = tokio::spawn(folder.guest(5100, exit));
        sleep(Duration::from_millis(20)).await;
        assert!(!call.is_finished());
        drop(ended);
        assert!(matches!(call.await.unwrap(), Err(ChannelError::Gone)));
    }

    #[test]
    fn a_folder_that_was_left_behind_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(FOLDER)).unwrap();
        fs::write(directory.path().join(FOLDER).join(VSOCK), "stale").unwrap();
        let folder = Folder::new(directory.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
