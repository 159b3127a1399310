//! Processes of other owners, told apart from those that got their number later by when they
//! started.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

/// When a process started, in clock ticks since the host's boot; `None` if there is none of that
/// number. See `proc_pid_stat(5)`, field 22.
#[must_use]
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name is in parentheses and may hold anything, parentheses too.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(22 - 3)?.parse().ok()
}

/// Kills a process, if it is still the one that started then, and waits until it is gone.
///
/// # Errors
/// When it may not be killed, or is still there when `patience` is at its end.
pub(crate) fn kill(pid: u32, started: u64, patience: Duration) -> io::Result<()> {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let process = match pidfd_open(process, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // The descriptor is of one process for ever, so this look is not outdated by what comes next.
    if start_time(pid) != Some(started) {
        return Ok(());
    }
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) => {}
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let patience = Timespec::try_from(patience).map_err(|_| io::ErrorKind::InvalidInput)?;
    match retry_on_intr(|| poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Sends a process a signal, if `is_meant` says, of the process that has the number at that moment,
/// that it is the one; nothing happens if there is none. Whether it was sent.
pub fn signal(pid: u32, signal: Signal, is_meant: impl FnOnce() -> bool) -> bool {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok());
    process.filter(|_| is_meant()).is_some_and(|process| pidfd_send_signal(process, signal).is_ok())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_the_process_that_was_meant_is_killed() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let started = start_time(child.id()).unwrap();
        assert!(started >= start_time(std::process::id()).unwrap());
        kill(child.id(), started + 1, Duration::from_secs(1)).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "one that got the same number later");
        kill(child.id(), started, Duration::from_secs(10)).unwrap();
        assert!(!child.wait().unwrap().success());
        kill(child.id(), started, Duration::from_secs(1)).unwrap();
        assert_eq!(start_time(child.id()), None);
    }
}
