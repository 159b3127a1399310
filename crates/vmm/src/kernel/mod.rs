//! Guest kernels: what must be in one, building it, keeping the built ones, checking a file that
//! is said to be one.

mod check;

pub use check::{InvalidKernel, check};
