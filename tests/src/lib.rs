//! What every end-to-end test starts from: the built binary with a state directory of its own,
//! images to run, a registry to pull from, hosts to talk to, and a look at what a command left behind.
//!
//! The tests themselves are the files of `tests/`. They run the binary that `MATCHLOCK_BIN` names,
//! else the one beside the tests' own (so `cargo build` first); `make test` uses the release build.
//! Whatever a test needs and the host lacks is a failure with a hint, never a skip.

pub mod cache;
pub mod lab;
pub mod matchlock;
pub mod oci;
mod port;
pub mod process;
pub mod registry;
mod remains;
pub mod sandbox;
pub mod site;
pub mod tool;

pub use lab::Lab;
pub use matchlock::Matchlock;
pub use port::quiet_port;
pub use process::{Output, Running};
pub use registry::Registry;
pub use sandbox::Sandbox;
pub use site::Site;
