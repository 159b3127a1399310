//! The walls around a process that runs hostile machine code for us, a VMM.
//!
//! A wall is either mandatory, then a process without it is never started, or it depends on the
//! host, then its [`Standing`] says whether it holds. What can be prepared is prepared here, in
//! the parent; [`crate::process`] puts the walls up between clone and exec.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use thiserror::Error;

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
    /// A seccomp filter without connections, mounts, namespaces, tracing. Mandatory.
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
    /// The seccomp filter.
    #[error("cannot prepare the seccomp filter")]
    Seccomp(#[from] BackendError),
}

/// Landlock's newest interface that we ask for; older kernels give what they have.
const LANDLOCK: ABI = ABI::V6;

/// System calls that a VMM with all its descriptors has no use for, and an intruder would. The
/// answer is `EPERM`. Connections are the important ones: the network namespace does not stop one
/// to `/run/docker.sock`, this does.
const DENIED: &[i64] = &[
    libc::SYS_connect,
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

    /// Our own filter; VMMs add their own on top of it.
    pub(crate) fn seccomp(&self) -> Result<BpfProgram, JailError> {
        let mut rules: BTreeMap<_, _> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
        if self.listens_in.is_some() {
            rules.insert(libc::SYS_socket, no_unix_stream()?);
        } else {
            rules.extend(LISTENING.iter().map(|call| (*call, Vec::new())));
        }
        let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let arch: TargetArch = std::env::consts::ARCH.try_into()?;
        Ok(SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)?.try_into()?)
    }
}

/// Matches every `socket(2)` but those for streams over Unix sockets. Datagrams need no connection to
/// get anywhere.
fn no_unix_stream() -> Result<Vec<SeccompRule>, BackendError> {
    const DOMAIN: u8 = 0;
    const TYPE: u8 = 1;
    /// `SOCK_TYPE_MASK`: the rest are flags.
    const KINDS: u64 = 0xf;
    let condition = |argument, operator, value| {
        SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?])
    };
    let domain = condition(DOMAIN, SeccompCmpOp::Ne, u64::from(libc::AF_UNIX.unsigned_abs()));
    let stream = u64::from(libc::SOCK_STREAM.unsigned_abs());
    let kinds = (0..=KINDS).filter(|kind| *kind != stream);
    let kinds = kinds.map(|kind| condition(TYPE, SeccompCmpOp::MaskedEq(KINDS), kind));
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
