//! The system calls that a confined command may not make: those that the container engines' default
//! profiles refuse to a container without further capabilities.
//!
//! A list of what is refused, not of what is allowed: the kernel is ours and of one version, so no
//! call appears that this list has never heard of; and the VM is what protects the host. A short list
//! also costs less with every command: the kernel evaluates it once for every system call number.

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule,
};
use sys::seccomp::{Rules, always, argument, new_namespaces, refused};

/// The filters, to be applied in this order.
pub(super) fn filters() -> Result<Vec<BpfProgram>, Error> {
    // glibc falls back to clone() when clone3() does not exist; its flags are in memory, where no
    // filter can look.
    let missing = always(&[libc::SYS_clone3]);
    Ok(vec![refused(rules()?, libc::EPERM)?, refused(missing, libc::ENOSYS)?])
}

fn rules() -> Result<Rules, BackendError> {
    let mut rules = always(REFUSED.iter().chain(REFUSED_HERE));
    rules.insert(libc::SYS_clone, new_namespaces()?);
    rules.insert(libc::SYS_personality, vec![unusual_personality()?]);
    // The agent of a VM may be reached by vsock; commands have no business there.
    rules.insert(libc::SYS_socket, vec![argument_is(0, libc::AF_VSOCK.cast_unsigned().into())?]);
    // Typing into one's own terminal on behalf of whoever reads it next.
    rules.insert(libc::SYS_ioctl, vec![argument_is(1, libc::TIOCSTI)?]);
    Ok(rules)
}

/// `personality` other than Linux, 32-bit uname, old uname, both, and the question what it is.
fn unusual_personality() -> Result<SeccompRule, BackendError> {
    let usual = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
    let conditions: Result<Vec<_>, _> = usual
        .iter()
        .map(|value| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *value))
        .collect();
    SeccompRule::new(conditions?)
}

fn argument_is(index: u8, value: u64) -> Result<SeccompRule, BackendError> {
    argument(index, SeccompCmpOp::Eq, value)
}

const REFUSED: &[c_long] = &[
    // The mount table and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_perf_event_open,
    libc::SYS_kcmp,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Keys are not divided by namespaces.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The whole system's settings.
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_vhangup,
    // Ways around the permissions of files.
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[c_long] = &[
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_sysfs,
    libc::SYS_uselib,
    libc::SYS_ustat,
];

#[cfg(target_arch = "aarch64")]
const REFUSED_HERE: &[c_long] = &[libc::SYS_kexec_file_load];

#[cfg(test)]
mod tests;
