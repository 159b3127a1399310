//! Guest kernels: what must be in one, building it, keeping the built ones, checking a file that
//! is said to be one.

mod build;
mod check;
mod fragment;
mod source;
mod step;
mod store;
mod tools;

pub use build::{BuildError, BuildOptions, Progress};
pub use check::{InvalidKernel, check};
pub use fragment::Dropped;
pub use store::{Info, Kernel, KernelError, Kernels};
