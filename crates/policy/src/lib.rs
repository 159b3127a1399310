//! What a sandbox may reach, and what happens to its requests. Pure: no I/O, no clock, no locks. What
//! cannot be decided is denied, and every denial says what decided.

pub mod body;
pub mod request;
pub mod rule;
