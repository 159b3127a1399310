//! A machine, whichever VMM runs it: what it is made of, and the handle to a running one.

use std::fs::File;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::{Explain, Kind};
use sys::jail::Layer;
use sys::process::{Process, Status};
use thiserror::Error;
use tokio::sync::{Notify, watch};

use crate::channel::Channel;
use crate::console::{Sink, Tail};
use crate::firecracker::Api;

/// Its number is the same everywhere.
const SIGKILL: i32 = 9;

/// A machine to be booted.
pub struct MachineSpec {
    /// Virtual CPUs, at least one.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mb: u32,
    /// What it is to be good at.
    pub pace: Pace,
    /// The guest kernel, an uncompressed vmlinux; see [`crate::kernel::check`].
    pub kernel: PathBuf,
    /// A cpio archive with `/init` in it; see [`crate::initramfs`].
    pub initramfs: Vec<u8>,
    /// Disks; the guest tells them apart by their serials, or by their order if the VMM gives it none
    /// of ours ([`Machine::disks_have_serials`]).
    pub disks: Vec<Disk>,
    /// The network interface, if the guest has one at all.
    pub nic: Option<Nic>,
    /// A folder that is only for its owner, where a VMM may have sockets while it starts. Nothing of
    /// that stays.
    pub directory: PathBuf,
    /// Gets what the guest's console says, beside the tail that is always kept in memory.
    pub console: Option<Sink>,
}

/// Where a machine with an emulated CPU saves time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// When it starts: it is gone soon.
    Sprint,
    /// When it idles: it stays.
    Marathon,
}

/// A disk: an open file, so that the VMM needs no access to its path.
#[derive(Debug)]
pub struct Disk {
    /// What the guest finds in `/sys/block/*/serial`: 1 to 20 letters, digits, `-` or `_`, unique.
    pub serial: String,
    /// The image, raw; opened for writing unless it is only read. The VMM gets this very description
    /// of it, so a lock (`flock(2)`) taken on it lasts as long as the VMM.
    pub file: File,
    /// What the guest may do to it, and how long that lasts.
    pub access: Access,
}

/// What a guest may do to a disk, and what a flush of the guest's (`fsync(2)`) reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It can only read it.
    ReadOnly,
    /// It can write; flushes end in the host's memory. For what does not outlive the machine.
    Scratch,
    /// It can write; what it has flushed outlives a host that loses power.
    Durable,
}

impl Access {
    /// Whether the guest can write to the disk.
    #[must_use]
    pub fn is_writable(self) -> bool {
        self != Self::ReadOnly
    }
}

/// A network interface, whose cable ends in a socket of ours, [`Machine::take_link`]: nothing on the host
/// listens, and the VMM can reach no network by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nic {
    /// The guest's hardware address.
    pub mac: [u8; 6],
    /// The most bytes of one IP packet, either way.
    pub mtu: u16,
}

/// Our end of the cable of a [`Nic`]. How frames go over it depends on the VMM.
#[derive(Debug)]
pub enum Link {
    /// A stream of frames, each with its length before it, 4 bytes big-endian.
    Stream(UnixStream),
    /// A packet socket (`packet(7)`) bound to an interface with `IFF_VNET_HDR`, behind which the guest is.
    Packets(OwnedFd),
}

/// How a machine came to its end, with the last it said.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{cause}{}", last_words(*.cause, .console_tail, .vmm_stderr))]
pub struct Exit {
    /// How.
    pub cause: Cause,
    /// The end of the guest's console.
    pub console_tail: String,
    /// The end of what the VMM itself wrote to its standard error.
    pub vmm_stderr: String,
}

/// Why a VMM process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Cause {
    /// The guest powered off or rebooted; a guest kernel that panics does that too.
    #[error("the VM shut down")]
    Shutdown,
    /// We killed it.
    #[error("the VM was killed")]
    Killed,
    /// The VMM gave up with this exit code.
    #[error("the VMM ended with exit code {0}")]
    Failed(i32),
    /// A signal that was not ours ended the VMM.
    #[error("the VMM was ended by signal {0}")]
    Signal(i32),
}

/// A running machine. Dropping it kills the VMM and waits until it is reaped, which takes
/// milliseconds; [`Machine::kill`] does the same without blocking the thread.
#[derive(Debug)]
pub struct Machine {
    pub(crate) process: Process,
    pub(crate) channel: Channel,
    pub(crate) console: Tail,
    pub(crate) end: Arc<End>,
    pub(crate) exit: watch::Receiver<Option<Exit>>,
    pub(crate) link: Option<Link>,
    pub(crate) control: Control,
}

/// How a VMM is spoken to.
#[derive(Debug)]
pub(crate) enum Control {
    /// QEMU's monitor, which [`End`] reaches.
    Monitor,
    /// Firecracker's API, unless it ended before it was there.
    Api(Option<Api>),
}

/// How we ask a VMM to end.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// Asks the VMM to end in its own way.
    pub(crate) quit: Notify,
    /// We sent SIGKILL.
    killed: AtomicBool,
}

impl Machine {
    /// The channel to the guest. It ends with the machine.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The VMM's process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Our end of its network interface's cable, if it has one; once.
    pub fn take_link(&mut self) -> Option<Link> {
        self.link.take()
    }

    /// Whether the guest finds [`Disk::serial`] at its disks. If not, they are in the order of
    /// [`MachineSpec::disks`].
    #[must_use]
    pub fn disks_have_serials(&self) -> bool {
        matches!(self.control, Control::Monitor)
    }

    /// Firecracker's API, if that is what runs the machine.
    #[must_use]
    pub fn firecracker(&self) -> Option<&Api> {
        match &self.control {
            Control::Monitor => None,
            Control::Api(api) => api.as_ref(),
        }
    }

    /// The walls around the VMM, and how each stands.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        self.process.layers()
    }

    /// The end of the guest's console so far.
    #[must_use]
    pub fn console_tail(&self) -> String {
        self.console.text()
    }

    /// Resolves when the VMM has ended and was reaped. The future is independent of `self`.
    pub fn exited(&self) -> impl Future<Output = Exit> + Send + use<> {
        let mut exit = self.exit.clone();
        async move {
            let exit = exit.wait_for(Option::is_some).await;
            exit.ok().and_then(|exit| exit.clone()).unwrap_or(Exit::UNKNOWN)
        }
    }

    /// Asks the VMM to end, which lets it finish what it is writing to its disks, and kills it
    /// after `grace`. The guest is not asked: [`proto::boot::Control::PowerOff`] does that.
    pub async fn stop(&self, grace: Duration) -> Exit {
        if !matches!(self.control, Control::Monitor) {
            // Firecracker writes to its disks before it tells its guest that it has, and has no way of
            // its own to end.
            return self.kill().await;
        }
        self.end.quit.notify_one();
        match tokio::time::timeout(grace, self.exited()).await {
            Ok(exit) => exit,
            Err(_) => self.kill().await,
        }
    }

    /// Kills the VMM and waits until it is reaped.
    pub async fn kill(&self) -> Exit {
        self.end.killed.store(true, Ordering::Relaxed);
        self.process.kill();
        self.exited().await
    }
}

impl End {
    /// What the VMM's exit status means.
    pub(crate) fn cause(&self, status: Status) -> Cause {
        match status {
            Status::Code(0) => Cause::Shutdown,
            Status::Code(code) => Cause::Failed(code),
            Status::Signal(_) if self.killed.load(Ordering::Relaxed) => Cause::Killed,
            Status::Signal(signal) => Cause::Signal(signal),
        }
    }
}

impl Exit {
    /// Only seen if the runtime was shut down under the machine, which kills it.
    const UNKNOWN: Self =
        Self { cause: Cause::Killed, console_tail: String::new(), vmm_stderr: String::new() };

    /// What to do, judged by more than the VMM's own words.
    fn general_hint(&self) -> Option<&'static str> {
        match self.cause {
            _ if self.console_tail.contains("Kernel panic - not syncing") => {
                Some("the guest kernel panicked; the end of its console says why. It may need more --memory")
            }
            Cause::Signal(SIGKILL) => {
                Some("something on this host killed it: `sudo dmesg` says whether for want of memory")
            }
            Cause::Failed(_) => Some(
                "what failed is the VMM: see whether `matchlock diagnose` says more, or try another --backend",
            ),
            Cause::Signal(_) | Cause::Shutdown | Cause::Killed => None,
        }
    }
}

impl Explain for Exit {
    fn kind(&self) -> Kind {
        Kind::Vm
    }

    fn hint(&self) -> Option<String> {
        let known =
            crate::qemu::hint(&self.vmm_stderr).or_else(|| crate::firecracker::hint(&self.vmm_stderr));
        known.or_else(|| self.general_hint().map(str::to_owned))
    }
}

/// The last lines of the VMM, or else of the guest, for a one-line message. A signal has nothing to do with what
/// the guest said.
fn last_words(cause: Cause, console: &str, stderr: &str) -> String {
    let lines = |text: &'_ str| -> Vec<String> {
        text.lines().rev().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
    };
    // The very last one may only say that this is the end.
    let reason = lines(stderr).into_iter().min_by_key(|line| crate::firecracker::vagueness(line));
    match (reason, lines(console).first()) {
        (Some(line), _) => format!("; its last words: {line}"),
        (None, Some(line)) if !matches!(cause, Cause::Signal(_)) => {
            format!("; last line of the console: {line}")
        }
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(cause: Cause, console: &str, stderr: &str) -> Exit {
        Exit { cause, console_tail: console.to_owned(), vmm_stderr: stderr.to_owned() }
    }

    #[test]
    fn the_last_words_are_the_reason_and_not_that_it_ends() {
        let stderr =
            "[main] error: no interrupts\nError: Build(Gsi)\nFirecracker exiting with error. exit_code=1\n\n";
        let failed = exit(Cause::Failed(1), "booting", stderr);
        let expected = "the VMM ended with exit code 1; its last words: [main] error: no interrupts";
        assert_eq!(failed.to_string(), expected);
        assert!(failed.hint().unwrap().contains("--backend"));
        let ended = exit(Cause::Shutdown, "booting\nKernel panic - not syncing: no init\n", "");
        let expected = "the VM shut down; last line of the console: Kernel panic - not syncing: no init";
        assert_eq!(ended.to_string(), expected);
        assert!(ended.hint().unwrap().contains("--memory"));
    }

    #[test]
    fn who_is_killed_has_not_said_why() {
        let killed = exit(Cause::Signal(SIGKILL), "booting", "");
        assert_eq!(killed.to_string(), "the VMM was ended by signal 9");
        assert!(killed.hint().unwrap().contains("dmesg"));
        assert_eq!(exit(Cause::Killed, "", "").hint(), None);
    }

    #[test]
    fn whatever_there_is_of_last_words_is_told() {
        let said = |console, stderr| last_words(Cause::Failed(1), console, stderr);
        let stderr = "Error: RunWithApi(BuildFromJson(NoMemory))\n\
                      2026-11-27T21:43:23 [matchlock:main] Firecracker exiting with error. exit_code=1\n";
        assert_eq!(said("x\n", stderr), "; its last words: Error: RunWithApi(BuildFromJson(NoMemory))");
        let end = "[matchlock:fc_api] Shutting down VM after intercepting a bad syscall (16).";
        assert_eq!(said("", end), format!("; its last words: {end}"));
        assert_eq!(said("one\ntwo\n\n", "\n"), "; last line of the console: two");
        assert_eq!(said("", ""), "");
    }
}
