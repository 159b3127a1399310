//! Which virtual machine monitor: as the command line says, or else the environment.

use api::spec::Backend;
use clap::ValueEnum;

use crate::failure::Failure;
use crate::host;

/// `--backend`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackendArg {
    /// Virtual machine monitor; by default what MATCHLOCK_BACKEND says, else auto.
    #[arg(long, value_enum, value_name = "BACKEND")]
    backend: Option<Choice>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Choice {
    /// Firecracker where it is installed, has KVM, user namespaces and TAP devices, and we are not root; else
    /// QEMU. `matchlock diagnose` says which, and why.
    Auto,
    /// QEMU, with KVM where that is usable and emulation where not.
    Qemu,
    /// Firecracker, which needs KVM and, for a network, user namespaces.
    Firecracker,
}

impl BackendArg {
    /// Which.
    ///
    /// # Errors
    /// When the environment's is none.
    pub(crate) fn chosen(&self) -> Result<Backend, Failure> {
        let choice = match (self.backend, host::set(VARIABLE)) {
            (Some(choice), _) => choice,
            (None, None) => Choice::Auto,
            (None, Some(text)) => {
                let choice = text.to_str().and_then(|text| Choice::from_str(text, false).ok());
                choice.ok_or_else(|| {
                    Failure::usage(format!("{VARIABLE} must be auto, qemu or firecracker, not {text:?}"))
                })?
            }
        };
        Ok(match choice {
            Choice::Auto => Backend::Auto,
            Choice::Qemu => Backend::Qemu,
            Choice::Firecracker => Backend::Firecracker,
        })
    }
}

const VARIABLE: &str = "MATCHLOCK_BACKEND";
