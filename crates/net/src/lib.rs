//! The network of a sandbox: the guest's Ethernet frames end in a userspace TCP/IP stack, and its flows
//! in one pipeline that asks `policy`. What is allowed is not decided here.

mod connect;
mod http;
mod report;

pub use http::{Guard, Violation};
pub use report::Reporter;
