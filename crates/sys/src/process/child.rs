//! What happens in the child between clone and exec.
//!
//! The child of a program with threads may only make system calls: any lock, the allocator's
//! included, may be held by a thread that does not exist on its side. So everything is laid out
//! before the clone, and libc's wrappers that do more than their system call (`setuid` tells all
//! threads) are avoided.

use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::process::{Pid, WaitOptions};
use rustix::thread::CapabilitySet;
use seccompiler::BpfProgram;

use super::tap;
use super::{Child, MANDATORY, SpawnError};
use crate::jail::{Jail, Layer, Standing, Wall};
use crate::rtnetlink::Requests;

/// Descriptors from here on are ours; below they are the child's.
pub(super) const HIGH: RawFd = 128;

/// Most descriptors of a child; the rest below [`HIGH`] is for those of the plan.
pub(super) const MAX_DESCRIPTORS: usize = 120;

/// Length of the child's report, bytes: the step, then errno.
pub(super) const REPORT_LEN: usize = 5;

/// The user and group that root becomes: `nobody`, who by convention owns nothing.
const NOBODY: libc::c_uint = 65534;

/// Everything the child needs, allocated by the parent.
pub(super) struct Plan {
    pub(super) program: CString,
    pub(super) argv: Vec<CString>,
    pub(super) environment: Vec<CString>,
    /// All at [`HIGH`] or above.
    pub(super) descriptors: Vec<RawFd>,
    /// Where to report a failure.
    pub(super) report: RawFd,
    /// A pidfd of the parent.
    pub(super) owner: RawFd,
    /// What the interface that is to be made needs, and where to send the socket that has its frames.
    pub(super) tap: Option<(Requests, RawFd)>,
    pub(super) landlock: Option<RawFd>,
    pub(super) limits: [(libc::__rlimit_resource_t, u64); 4],
    pub(super) groups: Vec<u32>,
    /// Whether root stays root.
    pub(super) keeps_user: bool,
    /// Put up in this order.
    pub(super) filters: Vec<BpfProgram>,
}

/// What the child was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Descriptors,
    Session,
    Limits,
    Identity,
    Tap,
    Capabilities,
    DiesWithOwner,
    NoNewPrivileges,
    Landlock,
    Seccomp,
    Exec,
}

const STEPS: [(Step, &str); 11] = [
    (Step::Descriptors, "closing descriptors"),
    (Step::Session, "starting a session"),
    (Step::Limits, "setting limits"),
    (Step::Identity, "becoming an unprivileged user"),
    (Step::Tap, "making its network interface"),
    (Step::Capabilities, "dropping capabilities"),
    (Step::DiesWithOwner, "binding its life to its owner's"),
    (Step::NoNewPrivileges, "giving up new privileges"),
    (Step::Landlock, "confining file access"),
    (Step::Seccomp, "filtering system calls"),
    (Step::Exec, "executing the program"),
];

impl Step {
    pub(super) fn name(self) -> &'static str {
        STEPS[self as usize].1
    }
}

/// The step and errno of a report.
pub(super) fn decode_report([step, errno @ ..]: [u8; REPORT_LEN]) -> (Step, c_int) {
    (STEPS[usize::from(step) % STEPS.len()].0, c_int::from_ne_bytes(errno))
}

/// The limits of `jail`, and no core dumps.
pub(super) fn limits(jail: &Jail) -> [(libc::__rlimit_resource_t, u64); 4] {
    [
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_AS, jail.address_space),
        (libc::RLIMIT_FSIZE, jail.file_size),
        (libc::RLIMIT_NOFILE, jail.open_files),
    ]
}

/// How the child's user is made harmless.
#[derive(Clone)]
enum Identity {
    /// Stay who we are.
    Keep,
    /// Root becomes nobody.
    Nobody,
    /// In a user namespace of its own, where it is who it was and nobody else exists. The lines
    /// for `uid_map` and `gid_map`.
    Mapped(CString, CString),
}

/// The namespaces of a child, where they can be had.
const NAMESPACES: c_int = libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

impl Plan {
    /// Clones a child that carries the plan out, in as many namespaces as this host allows.
    pub(super) fn clone_child(&self) -> Result<Child, SpawnError> {
        block_signals().map_err(SpawnError::Process)?;
        let privileged = may_change_user() && !self.keeps_user;
        let mapped = Identity::mapped();
        let attempts = [
            // Root needs no user namespace, and one that is not there cannot be broken out of.
            (NAMESPACES, if privileged { Identity::Nobody } else { Identity::Keep }),
            (NAMESPACES | libc::CLONE_NEWUSER, mapped),
        ];
        let mut refused = None;
        for (flags, identity) in attempts {
            match self.clone_with(flags, &identity) {
                Ok((pid, handle)) => {
                    return Ok(Child::new(pid, handle, layers(&identity, Standing::Holds)));
                }
                Err(error) => refused = Some(error),
            }
        }
        let refused = refused.unwrap_or_else(|| io::ErrorKind::Other.into());
        if self.tap.is_some() {
            // In the host's own network it would be seen, and reach others.
            return Err(SpawnError::Namespaces(refused));
        }
        let identity = if privileged { Identity::Nobody } else { Identity::Keep };
        let (pid, handle) = self.clone_with(0, &identity).map_err(SpawnError::Process)?;
        let reason = refused.to_string();
        Ok(Child::new(pid, handle, layers(&identity, Standing::Missing(reason))))
    }

    fn clone_with(&self, namespaces: c_int, identity: &Identity) -> io::Result<(Pid, OwnedFd)> {
        let (argv, environment) = (pointers(&self.argv), pointers(&self.environment));
        let flags = c_long::from(namespaces | libc::CLONE_PIDFD | libc::SIGCHLD);
        let mut handle: RawFd = -1;
        // Not clone3, which container runtimes refuse because a filter cannot see its flags.
        // SAFETY: without CLONE_VM the child gets a copy of our memory and of this stack, as with
        // fork; it goes straight into `run`, which only makes system calls and never returns. The
        // third argument is where the kernel stores the pidfd, valid for the call.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut handle, 0, 0) };
        if pid == 0 {
            self.run(&argv, &environment, identity);
        }
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        let pid = libc::pid_t::try_from(pid).ok().and_then(Pid::from_raw).expect("a child has a positive ID");
        // SAFETY: the kernel has just stored a new descriptor there, which nobody else has.
        Ok((pid, unsafe { OwnedFd::from_raw_fd(handle) }))
    }

    /// The child.
    fn run(&self, argv: &[*const c_char], environment: &[*const c_char], identity: &Identity) -> ! {
        let (step, report) = match self.enter(identity) {
            Ok(()) => {
                // SAFETY: both arrays end with a null pointer and point to strings that live.
                unsafe { libc::execve(self.program.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
                (Step::Exec, self.report_number())
            }
            // Only the first step moves the report descriptor.
            Err(Step::Descriptors) => (Step::Descriptors, self.report),
            Err(step) => (step, self.report_number()),
        };
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or_default();
        let mut message = [step as u8; REPORT_LEN];
        message[1..].copy_from_slice(&errno.to_ne_bytes());
        // SAFETY: the message is valid for its length; where the write fails nobody is left to
        // be told.
        unsafe { libc::write(report, message.as_ptr().cast(), message.len()) };
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(127) }
    }

    /// All walls, in the only order that works: each may need what the next takes away.
    fn enter(&self, identity: &Identity) -> Result<(), Step> {
        self.place_descriptors().ok_or(Step::Descriptors)?;
        new_session().ok_or(Step::Session)?;
        self.limit().ok_or(Step::Limits)?;
        drop_bounding_set();
        identity.assume(&self.groups).ok_or(Step::Identity)?;
        if let Some((requests, _)) = &self.tap {
            // With the capabilities that we have in the new namespaces, before they go.
            tap::make(requests, self.tap_number()).ok_or(Step::Tap)?;
        }
        drop_capabilities().ok_or(Step::Capabilities)?;
        // After the change of user, which resets it.
        die_with(self.owner_number()).ok_or(Step::DiesWithOwner)?;
        // SAFETY: a call without pointers.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).ok_or(Step::NoNewPrivileges)?;
        if self.landlock.is_some() {
            // SAFETY: a call without pointers.
            let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.landlock_number(), 0) };
            (done == 0).then_some(()).ok_or(Step::Landlock)?;
        }
        self.filters
            .iter()
            .try_for_each(|filter| seccompiler::apply_filter(filter))
            .map_err(|_| Step::Seccomp)
    }

    /// Number of the report descriptor once the descriptors are in place.
    fn report_number(&self) -> RawFd {
        RawFd::try_from(self.descriptors.len()).unwrap_or(HIGH)
    }

    fn owner_number(&self) -> RawFd {
        self.report_number() + 1
    }

    /// Valid if there is to be an interface.
    fn tap_number(&self) -> RawFd {
        self.owner_number() + 1
    }

    /// Valid if there are rules.
    fn landlock_number(&self) -> RawFd {
        self.owner_number() + RawFd::from(self.tap.is_some()) + 1
    }

    /// Gives every descriptor its number and closes all others.
    fn place_descriptors(&self) -> Option<()> {
        let tap = self.tap.as_ref().map(|(_, socket)| *socket);
        let ours = [Some(self.report), Some(self.owner), tap, self.landlock];
        let kept = self.descriptors.iter().map(|fd| (*fd, 0));
        let ours = ours.into_iter().flatten().map(|fd| (fd, libc::O_CLOEXEC));
        let mut next = 0;
        for (fd, flags) in kept.chain(ours) {
            // SAFETY: a call without pointers.
            check(unsafe { libc::dup3(fd, next, flags) })?;
            next += 1;
        }
        // SAFETY: a call without pointers; nothing in this process uses what it closes.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, next, libc::c_uint::MAX, 0) };
        (closed == 0).then_some(())
    }

    fn limit(&self) -> Option<()> {
        for (resource, most) in self.limits {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            // SAFETY: the limit is valid for the call.
            check(unsafe { libc::setrlimit(resource, &raw const limit) })?;
        }
        Some(())
    }
}

/// Clones a child into a user namespace and all others, where it does nothing but become who it was.
/// That much is needed: there are hosts that allow the namespace and forbid to map anybody into it.
pub(super) fn try_namespaces() -> io::Result<()> {
    block_signals()?;
    let identity = Identity::mapped();
    // With copies of our descriptors it might be the last to close what is closed here meanwhile, and we would
    // wait for the end of a VM that has nothing to do with it (`kvm::probe`).
    let flags = c_long::from(NAMESPACES | libc::CLONE_NEWUSER | libc::CLONE_FILES | libc::SIGCHLD);
    // SAFETY: without CLONE_VM the child gets a copy of our memory and of this stack, as with fork; it
    // only makes system calls, leaves no descriptor open or closed that was not, and never returns.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if child == 0 {
        let errno = match identity.assume(&[]) {
            Some(()) => 0,
            None => io::Error::last_os_error().raw_os_error().unwrap_or(libc::EPERM),
        };
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(errno) }
    }
    let child = libc::pid_t::try_from(child).ok().filter(|child| *child > 0).and_then(Pid::from_raw);
    let child = child.ok_or_else(io::Error::last_os_error)?;
    let status = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty()))?;
    match status.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::Error::other("a signal ended the child")),
    }
}

impl Identity {
    fn mapped() -> Self {
        let line = |id: u32| CString::new(format!("{id} {id} 1")).expect("digits contain no NUL");
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        Self::Mapped(line(user), line(group))
    }

    /// By bare system calls: libc's `setuid` family would signal threads that are not here.
    fn assume(&self, groups: &[u32]) -> Option<()> {
        match self {
            Self::Keep => Some(()),
            Self::Mapped(users, groups) => {
                write_file(c"/proc/self/setgroups", c"deny")?;
                write_file(c"/proc/self/gid_map", groups)?;
                write_file(c"/proc/self/uid_map", users)
            }
            Self::Nobody => {
                // SAFETY: the groups are valid for their length.
                let done = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
                (done == 0).then_some(())?;
                // SAFETY: a call without pointers.
                let done = unsafe { libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY) };
                (done == 0).then_some(())?;
                // SAFETY: a call without pointers.
                let done = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
                (done == 0).then_some(())
            }
        }
    }
}

fn layers(identity: &Identity, namespaces: Standing) -> Vec<Layer> {
    let root = rustix::process::geteuid().is_root();
    let identity = match identity {
        Identity::Keep | Identity::Mapped(..) if root => {
            let why = if may_change_user() {
                "this VMM opens its files as the user who has them, and that is root"
            } else {
                "root without CAP_SETUID and CAP_SETGID stays root"
            };
            Standing::Missing(why.to_owned())
        }
        _ => Standing::Holds,
    };
    let depends = [(Wall::Identity, identity), (Wall::Namespaces, namespaces)];
    let mandatory = MANDATORY.map(|wall| (wall, Standing::Holds));
    let all = mandatory.into_iter().chain(depends);
    all.map(|(wall, standing)| Layer { wall, standing }).collect()
}

fn may_change_user() -> bool {
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
    rustix::process::geteuid().is_root()
        && rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// In this thread, for good: it has nothing to do with signals, and the child must not run our
/// handlers before it executes its program.
fn block_signals() -> io::Result<()> {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set was filled, and lives.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// A session without a terminal (Ctrl-C is for us to handle), default signal handling, no
/// working directory to keep busy, no file that others can read.
fn new_session() -> Option<()> {
    // SAFETY: a call without pointers.
    check(unsafe { libc::setsid() })?;
    // SAFETY: the path is a C string.
    check(unsafe { libc::chdir(c"/".as_ptr()) })?;
    // SAFETY: a call without pointers.
    unsafe { libc::umask(0o077) };
    for signal in 1..=64 {
        // Our handlers must not run here, and exec would keep what we ignore (SIGPIPE).
        // SAFETY: SIG_DFL is no function of ours; what cannot be changed is refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: the set was filled, and lives.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) })
}

/// Asks to be killed with the parent's thread, then looks whether that was too late.
fn die_with(owner: RawFd) -> Option<()> {
    // SAFETY: a call without pointers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    let mut watched = libc::pollfd { fd: owner, events: libc::POLLIN, revents: 0 };
    // getppid() says nothing across PID namespaces; a pidfd is readable once its process ended.
    // SAFETY: one valid entry, no waiting.
    match unsafe { libc::poll(&raw mut watched, 1, 0) } {
        0 => Some(()),
        _ => None,
    }
}

/// So that executing a program as root of a namespace gives nothing back. Without the right to do
/// it there is nothing to be given back.
fn drop_bounding_set() {
    for capability in 0..64 {
        // SAFETY: a call without pointers; unknown capabilities are refused.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

/// Empties the thread's capability sets (`capset(2)`, version 3 of its structures).
fn drop_capabilities() -> Option<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION_3, 0];
    let none = [0u32; 6];
    // SAFETY: the header and two data structures of three words, as version 3 wants them.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    (done == 0).then_some(())
}

pub(super) fn write_file(path: &CStr, text: &CStr) -> Option<()> {
    // SAFETY: the path is a C string.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    check(file)?;
    let text = text.to_bytes();
    // SAFETY: the text is valid for its length.
    let written = unsafe { libc::write(file, text.as_ptr().cast(), text.len()) };
    // SAFETY: the file is ours.
    unsafe { libc::close(file) };
    (usize::try_from(written) == Ok(text.len())).then_some(())
}

pub(super) fn check(result: c_int) -> Option<()> {
    (result >= 0).then_some(())
}

/// The strings as exec wants them.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}
