//! How guest code is run: by the CPU or by emulation.

use sys::kvm::{self, KvmUnusable};

/// What runs the guest's code.
#[derive(Debug)]
pub enum Accelerator {
    /// The CPU.
    Kvm,
    /// QEMU's emulation, because KVM is of no use here.
    Tcg(&'static KvmUnusable),
}

impl Accelerator {
    /// Finds out, in a few milliseconds for the first time.
    #[must_use]
    pub fn probe() -> Self {
        match kvm::probe() {
            Ok(mloops) => {
                tracing::debug!(mloops, "KVM is usable");
                Self::Kvm
            }
            Err(why) => {
                tracing::debug!(%why, "KVM is not usable");
                Self::Tcg(why)
            }
        }
    }
}
