//! Process 1 of a command's PID namespace: builds the command's view of the system, starts the
//! program, passes orders on, reaps orphans, and when the program ends kills what it left behind.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use proto::agent::{Ended, Exec, StartError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::mount_move;
use rustix::net::{RecvFlags, recv};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, set_dumpable_behavior, wait};
use sys::fork::Forked;
use sys::signal::{self, ChildEvents};

use super::{Confinement, Launch, Order, proc, program, report, words};
use crate::boot::{CONFINED_ROOT, NULL, PRIVILEGED_ROOT};

/// Runs the command of `launch` to its end. The caller must be process 1 of its PID namespace, with a
/// mount table of its own.
pub(crate) fn init(launch: Launch, confinement: &Confinement) -> ! {
    let ended = match start(&launch, confinement) {
        Ok((program, children)) => {
            // The program has its streams; while we held them too, nobody would see their end.
            let Launch { control, stdio, .. } = launch;
            drop(stdio);
            let ended = Supervisor { program, children, control, ended: None, deadline: None }.run();
            report(&ended.1, &ended.0);
            std::process::exit(0)
        }
        Err(error) => Ended::NotStarted(error),
    };
    launch.report(&ended);
    std::process::exit(0)
}

fn start(launch: &Launch, confinement: &Confinement) -> Result<(Pid, ChildEvents), StartError> {
    let internal = |what: &str, error: &io::Error| StartError::Internal(format!("{what}: {}", words(error)));
    let exec = launch.exec().map_err(StartError::Internal)?;
    let children = ChildEvents::new().map_err(|error| internal("signals", &error))?;
    // No command may look into this process, which has more rights than it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| internal("prctl", &error.into()))?;
    enter_root(&exec, confinement).map_err(|error| internal("the sandbox's root", &error))?;
    match confinement.fork_program().map_err(|error| internal("no process", &error))? {
        Forked::Parent(program) => Ok((program, children)),
        Forked::Child => {
            let error = program::run(&exec, &launch.stdio, confinement);
            launch.report(&Ended::NotStarted(error));
            std::process::exit(127)
        }
    }
}

/// Makes the sandbox's root our `/`, with `/proc` of our PID namespace. Everything else that the
/// agent has mounted is below it and out of reach.
fn enter_root(exec: &Exec, confinement: &Confinement) -> io::Result<()> {
    let root = if exec.privileged { PRIVILEGED_ROOT } else { CONFINED_ROOT };
    // Here, since only what is in our mount table can be mounted again.
    let null = open(NULL, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::chdir(root)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    proc::mount()?;
    if exec.privileged { Ok(()) } else { confinement.hide_proc(null.as_fd()) }
}

struct Supervisor {
    program: Pid,
    children: ChildEvents,
    control: OwnedFd,
    /// How the program ended, if it did.
    ended: Option<Ended>,
    /// When patience with a command that was told to end does. Until then all its processes have time,
    /// whether or not the program itself is still there.
    deadline: Option<Instant>,
}

impl Supervisor {
    fn run(mut self) -> (Ended, OwnedFd) {
        loop {
            let others = self.reap();
            if let Some(ended) = self.ended.take_if(|_| !others || self.deadline.is_none()) {
                kill_and_reap_all();
                return (ended, self.control);
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.deadline = None;
                let _ = signal::send_to_all(Signal::KILL.as_raw());
            }
            self.wait();
        }
    }

    /// Waits for a child's end, an order or the deadline, and follows the order.
    fn wait(&mut self) {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [PollFd::new(&self.children, PollFlags::IN), PollFd::new(&self.control, PollFlags::IN)];
        if poll(&mut fds, left.as_ref()).is_err() {
            return;
        }
        let [child_ended, ordered] = fds.map(|fd| !fd.revents().is_empty());
        if child_ended {
            self.children.clear();
        }
        if ordered {
            self.obey();
        }
    }

    fn obey(&mut self) {
        let mut message = [0; 32];
        let length = recv(&self.control, &mut message, RecvFlags::DONTWAIT).map_or(0, |(length, _)| length);
        match postcard::from_bytes(&message[..length]) {
            Ok(Order::Signal(number)) => self.signal(number),
            Ok(Order::Terminate { grace_ms }) => {
                let _ = signal::send_to_all(Signal::TERM.as_raw());
                // A stopped process takes no SIGTERM.
                let _ = signal::send_to_all(Signal::CONT.as_raw());
                self.deadline = Instant::now().checked_add(Duration::from_millis(grace_ms));
            }
            // The agent is gone, or out of its mind.
            Err(_) => self.deadline = Some(Instant::now()),
        }
    }

    fn signal(&self, number: i32) {
        let program = self.program.as_raw_pid();
        // It leads no group before it has called setsid().
        if signal::send_to_group(program, number).is_err() {
            let _ = signal::send_to_process(program, number);
        }
    }

    /// Takes away all that has ended. Gives whether any process is left: orphans are our children too.
    fn reap(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                // Once: while others have their time, its number can become another's.
                Ok(Some((pid, status))) if pid == self.program && self.ended.is_none() => {
                    self.ended = Some(ended(status));
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}

/// Ends everything else in the PID namespace. After this nothing more can be written anywhere.
fn kill_and_reap_all() {
    let _ = signal::send_to_all(Signal::KILL.as_raw());
    reap_all();
}

/// Waits until this process has no children any more.
pub(crate) fn reap_all() {
    while let Ok(Some(_)) | Err(rustix::io::Errno::INTR) = wait(WaitOptions::empty()) {}
}

fn ended(status: WaitStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Exited(u8::try_from(code & 0xff).expect("masked")),
        (None, Some(number)) => Ended::Signalled(number),
        (None, None) => Ended::Signalled(Signal::KILL.as_raw()),
    }
}
