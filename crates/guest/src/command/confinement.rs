//! What a command may do: user, capabilities, system calls, control group. Prepared once, applied to
//! each command; anything that cannot be applied keeps the command from starting.
//!
//! The boundary that protects the host is the VM. This one protects the sandbox from its own
//! commands, as a container engine's defaults do: the same capabilities, the same system calls.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use seccompiler::BpfProgram;
use sys::fork::{Fork, Forked};
use thiserror::Error;

use super::account::Account;
use super::proc::Cover;
use super::seccomp;
use crate::boot::COMMANDS;

/// What confines commands could not be prepared or applied.
#[derive(Debug, Error)]
pub(crate) enum ConfinementError {
    /// The system call filter.
    #[error("the system call filter")]
    Seccomp(#[from] Box<seccompiler::Error>),
    /// The commands' control group.
    #[error("the control group {COMMANDS}")]
    ControlGroup(#[source] io::Error),
    /// A change of identity or capabilities.
    #[error("{0}")]
    Identity(&'static str, #[source] io::Error),
}

/// Everything that does not depend on the command.
#[derive(Debug)]
pub(crate) struct Confinement {
    filters: Vec<BpfProgram>,
    covers: Vec<Cover>,
    commands: File,
}

/// Capabilities of a confined command of user 0; commands of other users have none.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);

impl Confinement {
    /// Prepares it, with `/proc` and the control groups in place.
    pub(crate) fn prepare() -> Result<Self, ConfinementError> {
        let commands = File::open(COMMANDS).map_err(ConfinementError::ControlGroup)?;
        Ok(Self { filters: seccomp::filters().map_err(Box::new)?, covers: Cover::needed(), commands })
    }

    /// Forks the process that becomes the program, in the commands' control group.
    pub(super) fn fork_program(&self) -> io::Result<Forked> {
        Fork { own_pids_and_mounts: false, cgroup: Some(self.commands.as_fd()) }.fork()
    }

    /// Covers what a confined command must not see of `/proc`, as [`Cover::apply`] does.
    pub(super) fn hide_proc(&self, null: BorrowedFd<'_>) -> io::Result<()> {
        self.covers.iter().try_for_each(|cover| cover.apply(null))
    }

    /// Becomes the user, with the rights of a command. There is no way back.
    pub(super) fn apply(&self, account: &Account, privileged: bool) -> Result<(), ConfinementError> {
        if !privileged {
            limit_bounding_set().map_err(|error| ConfinementError::Identity("the bounding set", error))?;
        }
        become_user(account).map_err(|error| ConfinementError::Identity("the user", error))?;
        if privileged {
            return Ok(());
        }
        limit_capabilities(account).map_err(|error| ConfinementError::Identity("the capabilities", error))?;
        for filter in &self.filters {
            // This also sets no_new_privs, without which it would need a capability.
            seccompiler::apply_filter(filter).map_err(Box::new)?;
        }
        Ok(())
    }
}

fn limit_bounding_set() -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if KEPT.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel knows no more.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn become_user(account: &Account) -> io::Result<()> {
    let groups: Vec<_> = account.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    Ok(set_thread_res_uid(uid, uid, uid)?)
}

fn limit_capabilities(account: &Account) -> io::Result<()> {
    let kept = if account.uid == 0 { KEPT } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    Ok(clear_ambient_capability_set()?)
}
