//! The network of a sandbox: the guest's Ethernet frames end in a userspace TCP/IP stack, and its flows
//! in one pipeline that asks `policy`. What is allowed is not decided here.

pub mod addresses;
mod report;
pub mod stack;
pub mod udp;

pub use report::Reporter;
