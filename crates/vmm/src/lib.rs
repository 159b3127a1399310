//! Virtual machines: how they are started, spoken to and ended; kernels; the channel's host end.
//! What is said over the channel, files and policy live elsewhere.
//!
//! How the parts fit together:
//!
//! ```text
//! kernel::find(…)  -> path of a vmlinux ─┐
//! initramfs::with_init(guest binary) ────┤
//! disks (open files), nic ───────────────┴─► MachineSpec ─► Driver::choose(…)?.boot(spec)? ─► Machine
//!
//! machine.channel().accept(Port::Boot)   the guest's Hello, then BootConfig, Progress, Control
//! machine.channel().open(Port::Exec)     one stream per request
//! machine.exited()                       resolves when the VMM is gone, with the console's tail
//! machine.kill()                         ends the VMM and waits until it is reaped
//! ```
//!
//! [`Driver::boot`] returns as soon as the VMM runs; waiting for the guest, with the time-outs
//! that belong to it, is the caller's: race `accept` against [`Machine::exited`]. Whatever happens
//! to the caller, dropped or killed with SIGKILL, the VMM does not outlive it.

pub mod channel;
pub mod console;
mod driver;
mod error;
pub mod firecracker;
pub mod initramfs;
pub mod kernel;
mod launch;
pub mod machine;
pub mod qemu;

pub use channel::{Channel, ChannelError, Stream};
pub use driver::Driver;
pub use error::{VmmError, kvm_fix};
pub use machine::{Access, Cause, Disk, Exit, Link, Machine, MachineSpec, Nic, Pace};
