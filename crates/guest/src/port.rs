//! The virtio-serial port to the host: found by its name, opened once the host is there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

/// How long the port may take to appear and to be connected. It is there before we are, as a rule.
const PATIENCE: Duration = Duration::from_secs(30);

/// sysfs tells nobody when a file appears, so we look again.
const PAUSE: Duration = Duration::from_millis(1);

/// There is no way to the host.
#[derive(Debug, Error)]
pub(crate) enum PortError {
    /// No port has the name.
    #[error("no virtio-serial port is named {name:?}")]
    Missing {
        /// The name.
        name: &'static str,
    },
    /// It is there, but the host's end is not.
    #[error("the host did not connect to the virtio-serial port {name:?}")]
    NotConnected {
        /// The name.
        name: &'static str,
    },
    /// It cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Opens the port `name`, whose host end is connected.
pub(crate) fn open(name: &'static str) -> Result<File, PortError> {
    let deadline = Instant::now() + PATIENCE;
    let path = wait(deadline, || find(Path::new(CLASS), name)).ok_or(PortError::Missing { name })?;
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    let port = opened.map_err(|source| PortError::Open { path, source })?;
    // Until then a read would give the end of file, as after a disconnection.
    wait(deadline, || is_connected(&port).then_some(())).ok_or(PortError::NotConnected { name })?;
    Ok(port)
}

/// Where the kernel lists the ports.
const CLASS: &str = "/sys/class/virtio-ports";

fn find(class: &Path, name: &str) -> Option<PathBuf> {
    let mut ports = fs::read_dir(class).ok()?.flatten();
    let port = ports.find(|port| {
        fs::read_to_string(port.path().join("name")).is_ok_and(|found| found.trim_end() == name)
    })?;
    Some(Path::new("/dev").join(port.file_name()))
}

fn is_connected(port: &File) -> bool {
    let mut fds = [PollFd::new(port, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && !fds[0].revents().contains(PollFlags::HUP)
}

fn wait<T>(deadline: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(PAUSE);
    }
}
