//! Which VMM runs a machine.

use std::ffi::OsStr;
use std::path::PathBuf;

use api::spec::Backend;

use crate::error::VmmError;
use crate::firecracker::{Firecracker, Options};
use crate::machine::{Machine, MachineSpec};
use crate::qemu::Qemu;

/// A VMM, found on this host.
#[derive(Debug, Clone)]
pub enum Driver {
    /// QEMU, by KVM or by emulation.
    Qemu(Qemu),
    /// Firecracker, by KVM.
    Firecracker(Firecracker),
}

impl Driver {
    /// The VMM that was asked for, in the directories of `path` (as in `$PATH`). Where the choice is
    /// ours, it is Firecracker, with these options, if it can be used with all walls, and else QEMU.
    ///
    /// # Errors
    /// [`VmmError::NotInstalled`]; and [`VmmError::Kvm`], if Firecracker is asked for and there is none.
    pub fn choose(backend: Backend, path: &OsStr, options: Options) -> Result<Self, VmmError> {
        match backend {
            Backend::Qemu => Qemu::find(path).map(Self::Qemu),
            Backend::Firecracker => Ok(Self::Firecracker(Firecracker::find(path)?.with(options))),
            Backend::Auto => match Firecracker::preferred(path) {
                Ok(firecracker) => Ok(Self::Firecracker(firecracker.with(options))),
                Err(why) => {
                    tracing::debug!(%why, "QEMU is chosen");
                    Qemu::find(path).map(Self::Qemu)
                }
            },
        }
    }

    /// Its name, as `--backend` takes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Qemu(_) => "qemu",
            Self::Firecracker(_) => "firecracker",
        }
    }

    /// Starts a machine, and returns when the VMM runs. The guest may open streams to
    /// [`proto::Port::Boot`]. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`VmmError`]; nothing is left behind.
    pub async fn boot(&self, spec: MachineSpec) -> Result<Machine, VmmError> {
        match self {
            Self::Qemu(qemu) => qemu.boot(spec).await,
            Self::Firecracker(firecracker) => firecracker.boot(spec).await,
        }
    }
}

/// The program of this name in the directories of `path`, symbolic links resolved.
pub(crate) fn find(program: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .find_map(|folder| folder.join(program).canonicalize().ok())
}
