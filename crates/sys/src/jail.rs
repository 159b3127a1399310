//! The walls around a process that runs hostile machine code for us, a VMM.
//!
//! A wall is either mandatory, then a process without it is never started, or it depends on the
//! host, then its [`Standing`] says whether it holds. What can be prepared is prepared here, in
//! the parent; [`crate::process`] puts the walls up between clone and exec.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};
use seccompiler::{BackendError, BpfProgram, SeccompCmpOp, SeccompRule, sock_filter};
use thiserror::Error;

use crate::seccomp::{always, argument, has_flag, new_namespaces, refused};

/// What a jailed process may still do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jail {
    /// Files, and folders with all beneath them, that it may read and execute. What does not
    /// exist is skipped.
    pub readable: Vec<PathBuf>,
    /// Files that it may open for reading and writing.
    pub writable: Vec<PathBuf>,
    /// Devices that it may open for reading and writing.
    pub devices: Vec<PathBuf>,
    /// A folder in which it may listen on Unix sockets. It may connect to none, wherever they are.
    pub listens_in: Option<PathBuf>,
    /// Groups that it keeps if it has to give up being root.
    pub groups: Vec<u32>,
    /// Whether it stays the user who starts it, even if that is root: then it can open that user's
    /// files by their names, which Landlock has to limit.
    pub keeps_user: bool,
    /// Most bytes of address space (`RLIMIT_AS`).
    pub address_space: u64,
    /// The longest file it may make, bytes (`RLIMIT_FSIZE`).
    pub file_size: u64,
    /// Most open descriptors (`RLIMIT_NOFILE`).
    pub open_files: u64,
}

/// One of the walls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wall {
    /// Ends with its owner (`PR_SET_PDEATHSIG`). Mandatory.
    DiesWithOwner,
    /// `no_new_privs`, no capability. Mandatory.
    NoPrivileges,
    /// Seccomp filters without connections, mounts, namespaces, tracing, changes to files but by writing
    /// them. Mandatory.
    SystemCalls,
    /// Only the descriptors and the environment it was given, a session of its own. Mandatory.
    NothingInherited,
    /// Limits of address space, file size and descriptors, no core dumps. Mandatory.
    Limits,
    /// A user that owns nothing, where we are root.
    Identity,
    /// Namespaces of its own: network, processes, IPC, host name.
    Namespaces,
    /// Landlock: no files but those it needs, no signals to other processes.
    Files,
}

/// How a wall stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// As it should.
    Holds,
    /// The kernel is too old for all of it; the rest holds.
    Partial,
    /// Not at all, for this reason.
    Missing(String),
}

/// One wall around one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Which.
    pub wall: Wall,
    /// How it stands.
    pub standing: Standing,
}

/// A wall that could not be prepared.
#[derive(Debug, Error)]
pub enum JailError {
    /// The Landlock rules.
    #[error("cannot prepare the Landlock rules")]
    Landlock(#[from] RulesetError),
    /// A path named by the jail.
    #[error("cannot open {path}", path = .0.display())]
    Path(PathBuf, #[source] io::Error),
    /// The seccomp filters.
    #[error("cannot prepare the seccomp filters")]
    Seccomp(#[from] BackendError),
}

/// Landlock's newest interface that we ask for; older kernels give what they have.
const LANDLOCK: ABI = ABI::V6;

/// System calls that a VMM with all its descriptors has no use for, and an intruder would. The
/// answer is `EPERM`. Connections are the important ones: the network namespace does not stop one
/// to `/run/docker.sock`, this does.
const DENIED: &[i64] = &[
    libc::SYS_connect,
    // A socket for datagrams reaches any server by its path, without a connection.
    libc::SYS_socketpair,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_acct,
];

/// Changes to files that whoever owns them may make by their path alone. Landlock knows nothing of attributes,
/// and of lengths only since Linux 6.2. `ftruncate(2)` needs a file that is open for writing.
const CHANGES: &[i64] = &[
    libc::SYS_truncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SETXATTRAT,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    REMOVEXATTRAT,
    libc::SYS_utimensat,
    FILE_SETATTR,
];

/// Those that younger architectures do without.
#[cfg(target_arch = "x86_64")]
const OLD_CHANGES: &[i64] = &[
    libc::SYS_creat,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CHANGES: &[i64] = &[];

/// Calls whose flags are in memory, where no filter can look. The answer is `ENOSYS`, upon which callers
/// take the older form.
const MISSING: &[i64] = &[libc::SYS_clone3, libc::SYS_openat2];

// What libc does not name, or not everywhere. Since Linux 5.1 a new call has one number for all architectures
// (`asm-generic/unistd.h`).
const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;
const REMOVEXATTRAT: i64 = 466;
const OPEN_TREE_ATTR: i64 = 467;
const FILE_SETATTR: i64 = 469;

/// What is denied, too, to whoever need not listen.
const LISTENING: &[i64] =
    &[libc::SYS_socket, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4];

impl Jail {
    /// The Landlock rules, if this kernel has Landlock, and how much of them it understands.
    pub(crate) fn landlock(&self) -> Result<(Option<OwnedFd>, Standing), JailError> {
        if let Ok(Some(ruleset)) = self.ruleset(CompatLevel::HardRequirement) {
            return Ok((Some(ruleset), Standing::Holds));
        }
        Ok(match self.ruleset(CompatLevel::BestEffort)? {
            Some(ruleset) => (Some(ruleset), Standing::Partial),
            None => (None, Standing::Missing("the kernel has no Landlock".to_owned())),
        })
    }

    fn ruleset(&self, level: CompatLevel) -> Result<Option<OwnedFd>, JailError> {
        let mut ruleset = Ruleset::default()
            .set_compatibility(level)
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?;
        let read = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::Execute;
        let write = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
        let listen = AccessFs::MakeSock | AccessFs::ReadDir;
        let rules = self.readable.iter().map(|path| (path, read));
        let rules = rules.chain(self.writable.iter().chain(&self.devices).map(|path| (path, write)));
        for (path, access) in rules.chain(self.listens_in.iter().map(|path| (path, listen))) {
            match open_path(path) {
                Ok(file) => ruleset = ruleset.add_rule(beneath(&file, access))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(JailError::Path(path.clone(), error)),
            }
        }
        Ok(ruleset.into())
    }

    /// Our own filters; VMMs add theirs on top of them.
    pub(crate) fn seccomp(&self) -> Result<Vec<BpfProgram>, JailError> {
        let mut denied = always(DENIED.iter().chain(CHANGES).chain(OLD_CHANGES));
        denied.insert(libc::SYS_clone, new_namespaces()?);
        // The flags are behind the path, and behind the folder if there is one.
        #[cfg(target_arch = "x86_64")]
        denied.insert(libc::SYS_open, vec![has_flag(1, libc::O_TRUNC)?]);
        denied.insert(libc::SYS_openat, vec![has_flag(2, libc::O_TRUNC)?]);
        if self.listens_in.is_some() {
            denied.insert(libc::SYS_socket, no_unix_stream()?);
        } else {
            denied.extend(always(LISTENING));
        }
        Ok(vec![no_x32(), refused(denied, libc::EPERM)?, refused(always(MISSING), libc::ENOSYS)?])
    }
}

/// Ends whoever makes a call of the x32 ABI. Where the kernel has that, its calls are those of x86-64 with one
/// more bit in their numbers, and filters that compare numbers let them pass. Elsewhere no number is that high.
fn no_x32() -> BpfProgram {
    /// `__X32_SYSCALL_BIT` of `asm/unistd.h`.
    const X32: u32 = 0x4000_0000;
    /// Where `struct seccomp_data` has the call's number.
    const NUMBER: usize = offset_of!(libc::seccomp_data, nr);
    let step = |code: u32, k, jf| sock_filter { code: code as u16, jt: 0, jf, k };
    vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NUMBER as u32, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32, 1),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ]
}

/// Matches every `socket(2)` but those for streams over Unix sockets. Datagrams need no connection to
/// get anywhere.
fn no_unix_stream() -> Result<Vec<SeccompRule>, BackendError> {
    const DOMAIN: u8 = 0;
    const TYPE: u8 = 1;
    /// `SOCK_TYPE_MASK`: the rest are flags.
    const KINDS: u64 = 0xf;
    let domain = argument(DOMAIN, SeccompCmpOp::Ne, u64::from(libc::AF_UNIX.unsigned_abs()));
    let stream = u64::from(libc::SOCK_STREAM.unsigned_abs());
    let kinds = (0..=KINDS).filter(|kind| *kind != stream);
    let kinds = kinds.map(|kind| argument(TYPE, SeccompCmpOp::MaskedEq(KINDS), kind));
    std::iter::once(domain).chain(kinds).collect()
}

/// Opens a file to name it, which needs no permission on the file itself.
fn open_path(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)
}

fn beneath(file: &File, access: BitFlags<AccessFs>) -> PathBeneath<&File> {
    let is_dir = file.metadata().is_ok_and(|metadata| metadata.is_dir());
    let access = if is_dir { access } else { access & AccessFs::from_file(LANDLOCK) };
    PathBeneath::new(file, access)
}
