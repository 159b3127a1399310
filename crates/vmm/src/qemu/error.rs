//! Why a machine does not start under QEMU.

use std::io;
use std::path::PathBuf;

use api::{Explain, Kind};
use sys::jail::JailError;
use sys::process::SpawnError;
use thiserror::Error;

use crate::kernel::InvalidKernel;

/// No machine was started, or it ended at once.
#[derive(Debug, Error)]
pub enum QemuError {
    /// The program is not installed.
    #[error("{} was not found in PATH", super::PROGRAM)]
    NotInstalled,
    /// The kernel cannot be booted.
    #[error("cannot boot the kernel {path}", path = .path.display())]
    Kernel {
        /// Which.
        path: PathBuf,
        /// Why.
        source: InvalidKernel,
    },
    /// Less memory than kernel, initramfs and a program need.
    #[error("{asked} MiB of memory are too little for a VM")]
    TooLittleMemory {
        /// What was asked for, MiB.
        asked: u32,
        /// The least that works, MiB.
        least: u32,
    },
    /// Not a number of vCPUs that the machine can have.
    #[error("a VM cannot have {0} vCPUs")]
    Vcpus(u32),
    /// More disks than the machine has slots.
    #[error("{asked} disks are more than the {most} that a VM can have")]
    TooManyDisks {
        /// What was asked for.
        asked: usize,
        /// The most that fit.
        most: usize,
    },
    /// A serial that is not 1 to 20 letters, digits, `-` or `_`, or is used twice.
    #[error("{0:?} cannot be the serial of a disk")]
    Serial(String),
    /// A file or socket that the machine needs.
    #[error("cannot prepare {what}")]
    Prepare {
        /// What for.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The process could not be started in its jail.
    #[error("cannot start QEMU")]
    Spawn(#[from] SpawnError),
}

impl Explain for QemuError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotInstalled => Kind::HostUnready,
            Self::Spawn(SpawnError::Jail(JailError::Path(..))) => Kind::HostUnready,
            Self::Kernel { source, .. } => source.kind(),
            Self::TooLittleMemory { .. } | Self::Vcpus(_) | Self::Serial(_) => Kind::InvalidInput,
            Self::TooManyDisks { .. } => Kind::LimitExceeded,
            Self::Prepare { source, .. } => api::error::io_kind(source),
            Self::Spawn(_) => Kind::Vm,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotInstalled => Some(INSTALL.to_owned()),
            Self::Kernel { source, .. } => source.hint(),
            Self::TooLittleMemory { least, .. } => {
                Some(format!("give it at least {least} MiB (--memory {least})"))
            }
            Self::TooManyDisks { .. } => Some("attach fewer disks".to_owned()),
            _ => None,
        }
    }
}

const INSTALL: &str = "install it with `apt install qemu-system-x86` (Debian, Ubuntu), \
     `dnf install qemu-system-x86-core` (Fedora), `pacman -S qemu-system-x86` (Arch) or \
     `apk add qemu-system-x86_64` (Alpine)";

/// What to do about a QEMU that gave up, judged by what it wrote to its standard error.
pub(crate) fn hint(complaint: &str) -> Option<String> {
    let has = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    if has(&["unsupported machine type", "sandbox support is not enabled", "Parameter 'sandbox'"]) {
        return Some(format!("this QEMU is too old, or built without microvm or seccomp; {INSTALL}"));
    }
    if has(&["cannot set up guest memory", "Cannot allocate memory", "failed to allocate"]) {
        return Some("the host is short of memory: give the VM less (--memory), or end something".to_owned());
    }
    has(&["error while loading shared libraries"]).then(|| format!("QEMU is not installed well; {INSTALL}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_that_gives_up_is_explained() {
        let old =
            "qemu-system-x86_64: unsupported machine type\nUse -machine help to list supported machines";
        assert!(hint(old).unwrap().contains("too old"));
        let memory = "qemu-system-x86_64: cannot set up guest memory 'microvm.ram': Cannot allocate memory";
        assert!(hint(memory).unwrap().contains("--memory"));
        assert_eq!(hint("qemu-system-x86_64: terminating on signal 15"), None);
    }
}
