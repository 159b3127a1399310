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
pub(crate) use error::hint;
use launch::Launch;

use crate::error::VmmError;
use crate::machine::{Machine, MachineSpec};

/// What it is called.
pub(crate) const NAME: &str = "QEMU";

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
    /// [`VmmError::NotInstalled`].
    pub fn find(path: &OsStr) -> Result<Self, VmmError> {
        sys::tsc::start();
        let program = crate::driver::find(PROGRAM, path);
        let missing = VmmError::NotInstalled { program: PROGRAM, install: error::INSTALL };
        Ok(Self { program: program.ok_or(missing)? })
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
    /// See [`VmmError`]; nothing is left behind.
    pub async fn boot(&self, spec: MachineSpec) -> Result<Machine, VmmError> {
        let program = self.program.clone();
        crate::launch::on_a_thread(move || Launch::new(&program, spec)).await?.into_machine()
    }
}
