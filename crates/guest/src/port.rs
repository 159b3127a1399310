//! The way to the host: a virtio-serial port, found by its name, or a vsock port on which the host calls.
//! Which of them there is depends on the VMM.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use proto::{CHANNEL_NAME, CHANNEL_PORT};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

/// How long the way may take to appear and to be connected. It is there before we are, as a rule.
const PATIENCE: Duration = Duration::from_secs(30);

/// sysfs tells nobody when a file appears, so we look again.
const PAUSE: Duration = Duration::from_millis(1);

/// There is no way to the host.
#[derive(Debug, Error)]
pub(crate) enum PortError {
    /// No device.
    #[error("there is neither a virtio-serial port {CHANNEL_NAME:?} nor vsock")]
    Missing,
    /// It is there, but the host's end is not.
    #[error("the host did not connect")]
    NotConnected,
    /// The port cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody can call.
    #[error("cannot listen on vsock port {CHANNEL_PORT}")]
    Listen(#[source] io::Error),
}

/// What the VMM has for us.
enum Way {
    /// A virtio-serial port, this device.
    Serial(PathBuf),
    /// A vsock device.
    Vsock,
}

/// Opens the way to the host, connected.
pub(crate) fn open() -> Result<File, PortError> {
    let deadline = Instant::now() + PATIENCE;
    let way = wait(deadline, || {
        let port = find(Path::new(SERIAL_PORTS), CHANNEL_NAME).map(Way::Serial);
        port.or_else(|| has_device(Path::new(VSOCK_DRIVER)).then_some(Way::Vsock))
    });
    match way.ok_or(PortError::Missing)? {
        Way::Serial(path) => open_port(path, deadline),
        Way::Vsock => accept(deadline),
    }
}

/// Where the kernel lists virtio-serial ports.
const SERIAL_PORTS: &str = "/sys/class/virtio-ports";

/// Where the kernel lists the devices that its vsock driver has.
const VSOCK_DRIVER: &str = "/sys/bus/virtio/drivers/vmw_vsock_virtio_transport";

/// Whether a virtio driver has a device: there is a link to each, `virtio0` or another number.
fn has_device(driver: &Path) -> bool {
    let Ok(entries) = fs::read_dir(driver) else { return false };
    let mut names = entries.flatten().map(|entry| entry.file_name());
    names.any(|name| name.to_str().is_some_and(|name| name.starts_with("virtio")))
}

/// Opens the port at `path`, whose host end is connected by `deadline`.
fn open_port(path: PathBuf, deadline: Instant) -> Result<File, PortError> {
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    let port = opened.map_err(|source| PortError::Open { path, source })?;
    // Until then a read would give the end of file, as after a disconnection.
    wait(deadline, || is_connected(&port).then_some(())).ok_or(PortError::NotConnected)?;
    Ok(port)
}

/// Takes the host's call. The first one is the only one: nobody listens when commands run.
fn accept(deadline: Instant) -> Result<File, PortError> {
    let listen = || {
        let socket = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
        socket.bind(&SockAddr::vsock(libc::VMADDR_CID_ANY, CHANNEL_PORT))?;
        socket.listen(1)?;
        Ok(socket)
    };
    let listener = listen().map_err(PortError::Listen)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 });
    match poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&left)) {
        Ok(1..) => {}
        Ok(_) => return Err(PortError::NotConnected),
        Err(error) => return Err(PortError::Listen(error.into())),
    }
    let (stream, _) = listener.accept().map_err(PortError::Listen)?;
    Ok(File::from(OwnedFd::from(stream)))
}

fn find(class: &Path, name: &str) -> Option<PathBuf> {
    let mut ports = fs::read_dir(class).ok()?.flatten();
    let port = ports.find(|port| {
        fs::read_to_string(port.path().join("name")).is_ok_and(|found| found.trim_end() == name)
    })?;
    Some(Path::new("/dev").join(port.file_name()))
}

fn is_connected(port: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&port, PollFlags::OUT)];
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
