//! What users say and hear: specifications, identifiers, error kinds. No I/O.

pub mod error;
pub mod forward;
pub mod id;
pub mod image;
pub mod spec;

pub use error::{Explain, Kind};
pub use forward::{Binding, Forward};
pub use id::SandboxId;
