//! The network of a sandbox: the guest's Ethernet frames end in a userspace TCP/IP stack, and its flows
//! in one pipeline that asks `policy`. What is allowed is not decided here.

mod connect;
pub mod dns;
mod flow;
mod http;
mod names;
mod report;
pub mod resolve;
pub mod sniff;
pub mod tls;
mod tunnel;
pub mod upstream;

pub use names::Names;
pub use report::Reporter;
