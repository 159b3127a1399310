//! `/proc` of a command, and what a confined command must not see or write there: the list of the
//! container engines.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::MountAttrFlags;

use crate::boot::{attach, beneath, create, duplicate};

/// Mounts it for the PID namespace that this process is in.
pub(super) fn mount() -> io::Result<()> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // A privileged command may have put anything in its place.
    let target = beneath::directory(root, "proc", 0o555)?;
    attach(create("proc", &[], attributes)?, target)
}

/// A part of `/proc` to cover.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cover {
    /// Reads as an empty file.
    Empty(&'static str),
    /// Cannot be written: much of it needs no capability, only user ID 0.
    ReadOnly(&'static str),
}

const COVERS: &[Cover] = &[
    Cover::Empty("/proc/kcore"),
    Cover::Empty("/proc/keys"),
    Cover::Empty("/proc/latency_stats"),
    Cover::Empty("/proc/sched_debug"),
    Cover::Empty("/proc/timer_list"),
    Cover::Empty("/proc/interrupts"),
    Cover::ReadOnly("/proc/acpi"),
    Cover::ReadOnly("/proc/asound"),
    Cover::ReadOnly("/proc/bus"),
    Cover::ReadOnly("/proc/fs"),
    Cover::ReadOnly("/proc/irq"),
    Cover::ReadOnly("/proc/scsi"),
    Cover::ReadOnly("/proc/sys"),
    Cover::ReadOnly("/proc/sysrq-trigger"),
];

impl Cover {
    /// Those that this kernel has something for.
    pub(super) fn needed() -> Vec<Self> {
        COVERS.iter().copied().filter(|cover| Path::new(cover.path()).exists()).collect()
    }

    /// Covers it, with the null device `null` where it is to be empty. `/proc` must be ours; `/dev` need not
    /// be, since earlier commands may have put anything there.
    pub(super) fn apply(self, null: BorrowedFd<'_>) -> io::Result<()> {
        let place = open(self.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let shown = match self {
            Self::Empty(_) => null,
            Self::ReadOnly(_) => place.as_fd(),
        };
        attach(duplicate(shown, MountAttrFlags::MOUNT_ATTR_RDONLY)?, &place)
    }

    fn path(self) -> &'static str {
        match self {
            Self::Empty(path) | Self::ReadOnly(path) => path,
        }
    }
}
