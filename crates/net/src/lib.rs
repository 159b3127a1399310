//! The network of a sandbox: the guest's Ethernet frames end in a userspace TCP/IP stack, and its flows
//! in one pipeline that asks `policy`. What is allowed is not decided here.

pub mod dns;
mod names;
mod report;
pub mod resolve;

pub use names::Names;
pub use report::Reporter;
