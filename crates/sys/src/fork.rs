//! `fork(2)` into new namespaces and another control group: `clone3(2)` of `<linux/sched.h>`.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;

use rustix::process::Pid;

/// How the child differs from its parent.
#[derive(Debug, Default)]
pub struct Fork<'fd> {
    /// The child is process 1 of a PID namespace of its own and has a copy of the mount table.
    pub own_pids_and_mounts: bool,
    /// The child starts in this control group (version 2), not in its parent's.
    pub cgroup: Option<BorrowedFd<'fd>>,
}

/// On which side of the fork the caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// In the process that called; the child has this number.
    Parent(Pid),
    /// In the new process.
    Child,
}

impl Fork<'_> {
    /// Forks. `/proc` must be mounted.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] if this process has more than one thread: the child would have
    /// locks whose holders do not exist. Otherwise as in `clone3(2)`.
    pub fn fork(&self) -> io::Result<Forked> {
        // The task directory has one link for each thread besides its own two.
        if std::fs::metadata("/proc/self/task")?.nlink() != 3 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a process with threads cannot fork"));
        }
        let mut flags = 0;
        if self.own_pids_and_mounts {
            flags |= libc::CLONE_NEWPID | libc::CLONE_NEWNS;
        }
        // SAFETY: the structure is plain numbers, for all of which zero is a value.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = u64::from(flags.cast_unsigned());
        arguments.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
        if let Some(cgroup) = self.cgroup {
            arguments.flags |= CLONE_INTO_CGROUP;
            arguments.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
        }
        // SAFETY: without CLONE_VM and with no stack given this is a fork: the child goes on here
        // with a copy of all memory. There is one thread, so nothing in that copy is half done.
        let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of_val(&arguments)) };
        match i32::try_from(result).ok().map(Pid::from_raw) {
            Some(Some(child)) if result > 0 => Ok(Forked::Parent(child)),
            Some(None) => Ok(Forked::Child),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// `CLONE_INTO_CGROUP` of `<linux/sched.h>`, too wide for libc's type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_refused() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || receiver.recv());
        assert_eq!(Fork::default().fork().unwrap_err().kind(), io::ErrorKind::Unsupported);
        drop(sender);
        thread.join().unwrap().unwrap_err();
    }
}
