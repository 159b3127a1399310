//! Why a machine does not start, whichever VMM runs it.

use std::io;
use std::path::PathBuf;

use api::{Explain, Kind};
use sys::jail::JailError;
use sys::kvm::KvmUnusable;
use sys::process::SpawnError;
use thiserror::Error;

use crate::firecracker::ApiError;
use crate::kernel::InvalidKernel;

/// No machine was started, or it ended at once.
#[derive(Debug, Error)]
pub enum VmmError {
    /// The VMM is not installed.
    #[error("{program} was not found in PATH")]
    NotInstalled {
        /// Its name.
        program: &'static str,
        /// How to get it.
        install: &'static str,
    },
    /// KVM does not work here, and the VMM cannot do without.
    #[error("{vmm} needs KVM, which cannot be used here")]
    Kvm {
        /// Which VMM.
        vmm: &'static str,
        /// Why not.
        source: &'static KvmUnusable,
    },
    /// Another version of the VMM than we know.
    #[error("{vmm} {found} is too old: {least} or later is needed")]
    Version {
        /// Which VMM.
        vmm: &'static str,
        /// What it says it is.
        found: String,
        /// The oldest that works.
        least: &'static str,
    },
    /// It would be root, with root's files within reach.
    #[error("{vmm} would run as root, and this kernel has no Landlock to confine it")]
    Unconfined {
        /// Which VMM.
        vmm: &'static str,
    },
    /// It started, and does not answer.
    #[error("{vmm} does not answer")]
    Silent {
        /// Which VMM.
        vmm: &'static str,
    },
    /// Its API refused to work with us.
    #[error("{vmm} cannot be spoken to")]
    Api {
        /// Which VMM.
        vmm: &'static str,
        /// Why.
        source: ApiError,
    },
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
    #[error("a VM of {vmm}'s cannot have {asked} vCPUs")]
    Vcpus {
        /// Whose.
        vmm: &'static str,
        /// What was asked for.
        asked: u32,
        /// The most that it can have.
        most: u32,
    },
    /// More disks than the machine has slots.
    #[error("{asked} disks are more than the {most} that a VM of {vmm}'s can have")]
    TooManyDisks {
        /// Whose.
        vmm: &'static str,
        /// What was asked for.
        asked: usize,
        /// The most that fit.
        most: usize,
    },
    /// A serial that is not 1 to 20 letters, digits, `-` or `_`, or is used twice.
    #[error("{0:?} cannot be the serial of a disk")]
    Serial(String),
    /// The file that says what guests see of the CPU.
    #[error("cannot read the CPU template {path}", path = .path.display())]
    CpuTemplate {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or socket that the machine needs.
    #[error("cannot prepare {what}")]
    Prepare {
        /// What for.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The process could not be started in its jail.
    #[error("cannot start {vmm}")]
    Spawn {
        /// Which VMM.
        vmm: &'static str,
        /// Why.
        source: SpawnError,
    },
}

impl Explain for VmmError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotInstalled { .. } | Self::Kvm { .. } | Self::Version { .. } | Self::Unconfined { .. } => {
                Kind::HostUnready
            }
            Self::Spawn {
                source: SpawnError::Jail(JailError::Path(..)) | SpawnError::Namespaces(_) | SpawnError::Tap(_),
                ..
            } => Kind::HostUnready,
            Self::Kernel { source, .. } => source.kind(),
            Self::TooLittleMemory { .. } | Self::Vcpus { .. } | Self::Serial(_) => Kind::InvalidInput,
            Self::TooManyDisks { .. } => Kind::LimitExceeded,
            Self::CpuTemplate { source, .. } | Self::Prepare { source, .. } => api::error::io_kind(source),
            Self::Spawn { .. } | Self::Silent { .. } | Self::Api { .. } => Kind::Vm,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotInstalled { install, .. } => Some((*install).to_owned()),
            Self::Kvm { source, .. } => Some(format!("{}, or use --backend qemu", kvm_fix(source))),
            Self::Version { .. } => Some(format!("{}, or use --backend qemu", crate::firecracker::INSTALL)),
            Self::Unconfined { .. } => {
                Some("run matchlock as an ordinary user, or use --backend qemu".to_owned())
            }
            Self::Silent { .. } => {
                Some("try `--backend qemu`, and look what the program in PATH is".to_owned())
            }
            Self::Spawn { source: SpawnError::Namespaces(_), .. } => {
                Some("see user namespaces in `matchlock diagnose`; or use --backend qemu".to_owned())
            }
            Self::Spawn { source: SpawnError::Tap(_), .. } => Some(
                "see /dev/net/tun in `matchlock diagnose`; do without (--no-network), or use --backend qemu"
                    .to_owned(),
            ),
            Self::Spawn { vmm: crate::firecracker::NAME, source: SpawnError::Exec(..) } => {
                Some(format!("it must need no shared library: {}", crate::firecracker::INSTALL))
            }
            Self::Kernel { source, .. } => source.hint(),
            Self::TooLittleMemory { least, .. } => {
                Some(format!("give it at least {least} MiB (--memory {least})"))
            }
            Self::Vcpus { vmm, most, .. } => Some(or_by_qemu(vmm, &format!("give it 1 to {most} (--cpus)"))),
            Self::TooManyDisks { vmm, .. } => Some(or_by_qemu(vmm, "attach fewer disks")),
            _ => None,
        }
    }
}

/// What to do about a bound of the VMM's, which with QEMU is wider.
fn or_by_qemu(vmm: &str, otherwise: &str) -> String {
    if vmm == crate::qemu::NAME {
        otherwise.to_owned()
    } else {
        format!("{otherwise}, or use --backend qemu")
    }
}

/// What to do about a KVM that cannot be used.
#[must_use]
pub fn kvm_fix(reason: &KvmUnusable) -> &'static str {
    match reason {
        KvmUnusable::NoPermission | KvmUnusable::NoDevice => "see /dev/kvm in `matchlock diagnose`",
        KvmUnusable::NoCpuFlag | KvmUnusable::TooSlow(_) => {
            "use a host with hardware virtualization, or turn on nested virtualization for this VM"
        }
        KvmUnusable::Broken { .. } => "look at the kernel's log: sudo dmesg | grep -i kvm",
    }
}
