//! A TAP device with a packet socket on it, in a network namespace of the test's own. The tests of `net`
//! use it, too.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;

use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};

/// Bytes of the longest IP packet that the device sends.
pub(crate) const MTU: u16 = 65_520;
/// `struct virtio_net_hdr`, with nothing left to be done.
pub(crate) const PLAIN: [u8; 10] = [0; 10];
/// That the process is the one with the namespace.
const ALONE: &str = "MATCHLOCK_TEST_ALONE";

/// Runs a test, whose whole name this is, in a process with a network namespace of its own.
pub(crate) fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return test();
    }
    let mut command = Command::new("unshare");
    command.arg("--net");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.arg(std::env::current_exe().unwrap()).args(["--exact", name]).env(ALONE, "1");
    let output = command.output().expect("needs unshare, of util-linux");
    let told = String::from_utf8_lossy(&output.stdout);
    let failure = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}{failure}");
}

/// The device, from the side of its guest.
pub(crate) struct Tap(File);

impl Tap {
    /// The device, which is up, and a packet socket on it.
    pub(crate) fn new() -> (Self, OwnedFd) {
        let name = c"tap0";
        let file = sys::tap::open(name).expect("needs /dev/net/tun and the right to open it");
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
        let index = name_to_index(any, name.to_str().unwrap()).unwrap();
        let mut requests = sys::rtnetlink::Requests::new(index);
        requests.configure(MTU);
        requests.bring_up();
        requests.send().unwrap();
        rustix::io::ioctl_fionbio(&file, true).unwrap();
        (Self(file.into()), sys::packet::open(index).unwrap())
    }

    /// Sends a frame, and what is left to be done to it.
    pub(crate) fn send(&mut self, offload: [u8; 10], frame: &[u8]) -> std::io::Result<()> {
        let sent = self.0.write_vectored(&[IoSlice::new(&offload), IoSlice::new(frame)])?;
        assert_eq!(sent, offload.len() + frame.len());
        Ok(())
    }

    /// The next frame, if there is one.
    pub(crate) fn receive(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; PLAIN.len() + sys::packet::LONGEST];
        match self.0.read(&mut frame) {
            Ok(length) => {
                assert_eq!(frame[..PLAIN.len()], PLAIN);
                Some(frame[PLAIN.len()..length].to_vec())
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
