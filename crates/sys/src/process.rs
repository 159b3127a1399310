//! A child process in a [`Jail`] that cannot outlive us and is always reaped.
//!
//! One thread per child clones it, waits for it and reaps it. It has to be the same thread:
//! `PR_SET_PDEATHSIG` fires when the *thread* that made the child ends, not when the process does.

mod child;
mod tap;

use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use thiserror::Error;

use crate::jail::{Jail, JailError, Layer, Wall};
use child::{Plan, Step};
pub use tap::Tap;

/// A program to be run in a jail. It starts in `/`, in a session of its own, with only the environment and
/// the descriptors listed.
#[derive(Debug)]
pub struct Command {
    /// Absolute path.
    pub program: PathBuf,
    /// Arguments, without the program's name.
    pub args: Vec<OsString>,
    /// Its environment, each variable as `NAME=VALUE`.
    pub environment: Vec<OsString>,
    /// Its descriptors: the first is its standard input and so on, without gaps.
    pub descriptors: Vec<OwnedFd>,
    /// Its walls.
    pub jail: Jail,
    /// A network interface to make for it. Then it must have namespaces of its own.
    pub tap: Option<Tap>,
}

/// A running child. Dropping it kills it and waits until it is reaped.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    handle: Arc<OwnedFd>,
    reaper: Option<thread::JoinHandle<()>>,
    layers: Vec<Layer>,
    frames: Option<OwnedFd>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

/// A child that could not be started.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// An argument or a variable with a NUL byte in it.
    #[error("{0:?}, an argument or a variable, contains a NUL byte")]
    Argument(OsString),
    /// More descriptors than we are prepared to hand over.
    #[error("{0} descriptors are too many for one process")]
    TooManyDescriptors(usize),
    /// A wall could not be prepared.
    #[error("cannot prepare the process's jail")]
    Jail(#[from] JailError),
    /// No pipe, thread or process could be made.
    #[error("cannot make a process")]
    Process(#[source] io::Error),
    /// It cannot do without namespaces, and there are none.
    #[error("cannot make namespaces for the process")]
    Namespaces(#[source] io::Error),
    /// It cannot do without its network interface, and that cannot be made.
    #[error("cannot make the process's network interface")]
    Tap(#[source] io::Error),
    /// A mandatory wall could not be put up.
    #[error("cannot jail the process ({0})")]
    Wall(&'static str, #[source] io::Error),
    /// The program could not be executed.
    #[error("cannot execute {program}", program = .0.display())]
    Exec(PathBuf, #[source] io::Error),
}

impl Command {
    /// Starts it, and returns once it executes the program. `ended` is called when it was reaped.
    ///
    /// # Errors
    /// See [`SpawnError`]; no process is left behind.
    pub fn spawn(self, ended: impl FnOnce(Status) + Send + 'static) -> Result<Process, SpawnError> {
        let (started, start) = mpsc::sync_channel(1);
        let reaper = thread::Builder::new().name("vmm-owner".to_owned()).spawn(move || {
            let child = match self.clone_jailed() {
                Ok(child) => child,
                Err(error) => return drop(started.send(Err(error))),
            };
            // Shared, not duplicated, which could fail and leave the child with nobody to kill it.
            let handle = Arc::new(child.handle);
            if started.send(Ok((child.pid, Arc::clone(&handle), child.parts))).is_err() {
                // The caller is gone.
                kill(&handle);
            }
            ended(reap(&handle));
        });
        let reaper = reaper.map_err(SpawnError::Process)?;
        let (pid, handle, Parts { layers, frames }) =
            start.recv().expect("the thread sends before it ends")?;
        Ok(Process { pid, handle, reaper: Some(reaper), layers, frames })
    }

    /// Clones, jails and executes, with as many namespaces as this host lets us have.
    fn clone_jailed(self) -> Result<Child, SpawnError> {
        let program = c_string(self.program.clone().into_os_string())?;
        let args = std::iter::once(Ok(program.clone())).chain(self.args.into_iter().map(c_string));
        let argv = args.collect::<Result<_, _>>()?;
        let environment = self.environment.into_iter().map(c_string).collect::<Result<_, _>>()?;
        // Out of the way of the numbers that the child gives them.
        let high = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, child::HIGH).map_err(io_error);
        let descriptors = self.descriptors.iter().map(high).collect::<Result<Vec<_>, _>>()?;
        if descriptors.len() > child::MAX_DESCRIPTORS {
            return Err(SpawnError::TooManyDescriptors(descriptors.len()));
        }
        // While the descriptors that it names are still ours.
        let (landlock, files) = self.jail.landlock()?;
        drop(self.descriptors);
        let (tap, frames) = match self.tap {
            Some(tap) => {
                let (theirs, ours) = UnixDatagram::pair().map_err(SpawnError::Process)?;
                (Some((tap, high(&theirs.into())?)), Some(ours))
            }
            None => (None, None),
        };
        let landlock = landlock.as_ref().map(high).transpose()?;
        let owner = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
        let owner = high(&owner.map_err(io_error)?)?;
        let filters = self.jail.seccomp()?;
        let (report, reported) = io::pipe().map_err(SpawnError::Process)?;
        let reported = high(&OwnedFd::from(reported))?;
        let plan = Plan {
            program,
            argv,
            environment,
            descriptors: descriptors.iter().map(AsRawFd::as_raw_fd).collect(),
            report: reported.as_raw_fd(),
            owner: owner.as_raw_fd(),
            tap: tap.as_ref().map(|(tap, socket)| (tap::requests(*tap), socket.as_raw_fd())),
            landlock: landlock.as_ref().map(AsRawFd::as_raw_fd),
            limits: child::limits(&self.jail),
            groups: self.jail.groups,
            keeps_user: self.jail.keeps_user,
            filters,
        };
        let mut child = plan.clone_child()?;
        child.parts.layers.push(Layer { wall: Wall::Files, standing: files });
        drop(reported);
        match read_report(report) {
            None => {
                // What it sends, it has sent before it executes the program.
                let received = frames.as_ref().map(tap::receive).transpose();
                child.parts.frames = received.map_err(|error| {
                    kill(&child.handle);
                    reap(&child.handle);
                    SpawnError::Process(error)
                })?;
                Ok(child)
            }
            Some((step, error)) => {
                reap(&child.handle);
                Err(match step {
                    Step::Exec => SpawnError::Exec(self.program, error),
                    Step::Tap => SpawnError::Tap(error),
                    step => SpawnError::Wall(step.name(), error),
                })
            }
        }
    }
}

impl Process {
    /// Its process ID in our namespace; valid until it is reaped.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The walls around it.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The packet socket (`packet(7)`) with the frames of its network interface, if it has one; once.
    pub fn take_frames(&mut self) -> Option<OwnedFd> {
        self.frames.take()
    }

    /// Sends SIGKILL; nothing happens if it has ended already.
    pub fn kill(&self) {
        kill(&self.handle);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some(reaper) = self.reaper.take() {
            // A panic of `ended` is not ours to repeat in a drop.
            drop(reaper.join());
        }
    }
}

/// Whether this user's children can have namespaces of their own: one is made, with all of them.
///
/// # Errors
/// What the kernel refuses it with.
pub fn try_namespaces() -> io::Result<()> {
    // In a thread of its own, since it blocks signals there.
    let tried = thread::Builder::new().name("namespaces".to_owned()).spawn(child::try_namespaces)?;
    tried.join().unwrap_or_else(|_| Err(io::Error::other("the attempt panicked")))
}

/// A child that nobody has reaped.
struct Child {
    pid: Pid,
    handle: OwnedFd,
    parts: Parts,
}

impl Child {
    fn new(pid: Pid, handle: OwnedFd, layers: Vec<Layer>) -> Self {
        Self { pid, handle, parts: Parts { layers, frames: None } }
    }
}

/// What there is to say of a child, and to have from it.
struct Parts {
    layers: Vec<Layer>,
    frames: Option<OwnedFd>,
}

/// The walls without which nothing is started.
const MANDATORY: [Wall; 5] =
    [Wall::DiesWithOwner, Wall::NoPrivileges, Wall::SystemCalls, Wall::NothingInherited, Wall::Limits];

fn c_string(text: OsString) -> Result<CString, SpawnError> {
    CString::new(text.into_vec()).map_err(|error| SpawnError::Argument(OsString::from_vec(error.into_vec())))
}

fn io_error(error: rustix::io::Errno) -> SpawnError {
    SpawnError::Process(error.into())
}

/// The only failure there can be is that it has ended.
fn kill(handle: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(handle, Signal::KILL);
}

fn reap(handle: &OwnedFd) -> Status {
    loop {
        match rustix::process::waitid(WaitId::PidFd(handle.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return match status.exit_status() {
                    Some(code) => Status::Code(code),
                    None => Status::Signal(status.terminating_signal().unwrap_or_default()),
                };
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            // Somebody else's wait(-1) took the status.
            Err(_) => return Status::Signal(0),
        }
    }
}

/// What the child reports if it cannot go on; nothing once it executes the program.
fn read_report(mut pipe: io::PipeReader) -> Option<(Step, io::Error)> {
    let mut report = [0; child::REPORT_LEN];
    pipe.read_exact(&mut report).ok()?;
    let (step, errno) = child::decode_report(report);
    Some((step, io::Error::from_raw_os_error(errno)))
}
