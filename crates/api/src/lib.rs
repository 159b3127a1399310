//! What users say and hear: specifications, identifiers, error kinds. No I/O.

pub mod disk;
pub mod error;
pub mod event;
pub mod forward;
pub mod hook;
pub mod id;
pub mod image;
pub mod lifecycle;
pub mod name;
pub mod network;
pub mod rpc;
pub mod spec;
pub mod status;

pub use error::{Explain, Kind};
pub use forward::{Binding, Forward};
pub use id::SandboxId;
pub use name::SandboxName;
pub use status::Status;
