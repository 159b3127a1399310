//! Signals by number: sending them to groups and to all, holding them back, waiting for children, and
//! what a new program must find. Numbers, because a user may send any of the 64 and rustix's type is for the
//! named ones.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};

/// The highest signal number of Linux.
pub const MAX_SIGNAL: i32 = 64;

/// Sends `signal` to every process that this one may signal, except itself and process 1: in a PID
/// namespace's process 1, to everybody else in the namespace.
///
/// # Errors
/// As in `kill(2)`; `ESRCH` if there was nobody.
pub fn send_to_all(signal: i32) -> io::Result<()> {
    kill(-1, signal)
}

/// Sends `signal` to the process group `group`.
///
/// # Errors
/// As in `kill(2)`; `EINVAL` for a group that is not above 1.
pub fn send_to_group(group: i32, signal: i32) -> io::Result<()> {
    if group <= 1 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    kill(-group, signal)
}

/// Sends `signal` to the process `process`.
///
/// # Errors
/// As in `kill(2)`; `EINVAL` for a number that is not above 0.
pub fn send_to_process(process: i32, signal: i32) -> io::Result<()> {
    if process <= 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    kill(process, signal)
}

/// A descriptor that is readable when a child has ended. It takes the place of `SIGCHLD`, which
/// stays blocked for good.
#[derive(Debug)]
pub struct ChildEvents(OwnedFd);

impl ChildEvents {
    /// Blocks `SIGCHLD` in this thread, which must be the only one, and gives it its default action.
    ///
    /// # Errors
    /// As in `signalfd(2)`.
    pub fn new() -> io::Result<Self> {
        set_action(libc::SIGCHLD, libc::SIG_DFL)?;
        let signals = set_of(&[libc::SIGCHLD]);
        let _ = set_mask(libc::SIG_BLOCK, &signals)?;
        // SAFETY: the set is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const signals, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Forgets the events so far; what has ended is found by waiting.
    pub fn clear(&self) {
        let mut event = [0; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.0, &mut event).is_ok_and(|length| length > 0) {}
    }
}

impl AsFd for ChildEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets ended children vanish by themselves instead of waiting to be reaped.
///
/// # Errors
/// As in `signal(2)`.
pub fn ignore_children() -> io::Result<()> {
    set_action(libc::SIGCHLD, libc::SIG_IGN)
}

/// Lets ended children be waited for, whatever whoever started this program thought of children.
///
/// # Errors
/// As in `signal(2)`.
pub fn await_children() -> io::Result<()> {
    set_action(libc::SIGCHLD, libc::SIG_DFL)
}

/// What a new program expects: nothing blocked, and nothing ignored of what Rust's runtime and this
/// module ignore.
///
/// # Errors
/// As in `signal(2)` and `sigprocmask(2)`.
pub fn restore_defaults() -> io::Result<()> {
    set_action(libc::SIGPIPE, libc::SIG_DFL)?;
    set_action(libc::SIGCHLD, libc::SIG_DFL)?;
    set_mask(libc::SIG_SETMASK, &set_of(&[])).map(drop)
}

/// Does `work` while none of `signals` is delivered to this thread; those that come meanwhile wait
/// for its end. Other threads' signals are not held back.
///
/// # Errors
/// As in `sigprocmask(2)`.
pub fn while_blocked<T>(signals: &[i32], work: impl FnOnce() -> T) -> io::Result<T> {
    /// What was blocked before.
    struct Mask(libc::sigset_t);

    impl Drop for Mask {
        fn drop(&mut self) {
            // It is a mask that the kernel gave us.
            let _ = set_mask(libc::SIG_SETMASK, &self.0);
        }
    }

    let _before = Mask(set_mask(libc::SIG_BLOCK, &set_of(signals))?);
    Ok(work())
}

fn kill(whom: i32, signal: i32) -> io::Result<()> {
    // SAFETY: two numbers.
    check(unsafe { libc::kill(whom, signal) })
}

fn set_action(signal: i32, action: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: callers pass SIG_DFL or SIG_IGN only, so no handler of ours can ever run.
    let before = unsafe { libc::signal(signal, action) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Changes what this thread blocks, and gives what it was before.
fn set_mask(how: i32, signals: &libc::sigset_t) -> io::Result<libc::sigset_t> {
    let mut before = set_of(&[]);
    // SAFETY: both are whole sets.
    check(unsafe { libc::sigprocmask(how, signals, &raw mut before) })?;
    Ok(before)
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the pointer is to a whole set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: sigemptyset has written all of it.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: the set is initialised.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `SIGURG`, which by default does nothing, is in this set of `/proc/thread-self/status`.
    fn urgent_is_in(set: &str) -> bool {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t")).unwrap();
        u64::from_str_radix(line, 16).unwrap() & (1 << (libc::SIGURG - 1)) != 0
    }

    #[test]
    fn a_signal_that_is_blocked_waits_for_the_end_of_the_work() {
        while_blocked(&[libc::SIGURG], || {
            // SAFETY: a number.
            assert_eq!(unsafe { libc::raise(libc::SIGURG) }, 0);
            assert!(urgent_is_in("SigBlk") && urgent_is_in("SigPnd"));
        })
        .unwrap();
        assert!(!urgent_is_in("SigBlk") && !urgent_is_in("SigPnd"));
    }

    #[test]
    fn numbers_that_mean_something_else_to_kill_are_refused() {
        assert_eq!(send_to_group(1, libc::SIGTERM).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(send_to_process(-1, libc::SIGTERM).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
