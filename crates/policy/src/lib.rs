//! What a sandbox may reach, and what happens to its requests. Pure: no I/O, no clock, no locks. What
//! cannot be decided is denied, and every denial says what decided.

pub mod address;
pub mod body;
pub mod denial;
pub mod entry;
pub mod host;
pub mod policy;
pub mod request;
pub mod response;
pub mod rule;
pub mod secret;

pub use denial::{Denial, Reason};
pub use entry::Entry;
pub use host::{Authority, Host, HostName};
pub use policy::{Admitted, Mode, Permit, Policy, PolicyError};
pub use secret::{SecretValue, Secrets};
