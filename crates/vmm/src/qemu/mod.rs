//! The QEMU driver: a microvm with virtio-mmio devices, by KVM where that is usable and by
//! emulation where it is not.
//!
//! QEMU holds that an escape from an *emulated* guest is no security matter of theirs, so here it
//! is jailed: see [`sys::jail`] for the walls, and `launch` for what it may still touch.

mod accelerator;
mod arguments;
mod error;
mod launch;
mod qmp;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

pub use accelerator::Accelerator;
pub use error::QemuError;
pub(crate) use error::hint;
use launch::Launch;

use crate::machine::{Machine, MachineSpec};

/// The program's name.
const PROGRAM: &str = "qemu-system-x86_64";

/// QEMU, found on this host.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
}

impl Qemu {
    /// Looks for QEMU in the directories of `path` (as in `$PATH`). Also takes the first of two
    /// readings of the host's clocks, so the earlier this is called the better.
    ///
    /// # Errors
    /// [`QemuError::NotInstalled`].
    pub fn find(path: &OsStr) -> Result<Self, QemuError> {
        sys::tsc::start();
        let program = std::env::split_paths(path)
            .filter(|folder| folder.is_absolute())
            .find_map(|folder| folder.join(PROGRAM).canonicalize().ok())
            .ok_or(QemuError::NotInstalled)?;
        Ok(Self { program })
    }

    /// The program, symbolic links resolved.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts a machine, and returns when QEMU runs. The guest may open streams to
    /// [`proto::Port::Boot`]. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`QemuError`]; nothing is left behind.
    pub async fn boot(&self, spec: MachineSpec) -> Result<Machine, QemuError> {
        let program = self.program.clone();
        let launch = tokio::task::spawn_blocking(move || Launch::new(&program, spec));
        launch.await.expect("launching does not panic")?.into_machine()
    }
}
