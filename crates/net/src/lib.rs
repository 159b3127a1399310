//! The network of a sandbox: the guest's Ethernet frames end in a userspace TCP/IP stack, and its flows
//! in one pipeline that asks `policy`. What is allowed is not decided here.

pub mod addresses;
mod connect;
pub mod dns;
mod flow;
mod http;
mod names;
mod network;
mod own;
mod report;
pub mod resolve;
pub mod sniff;
pub mod stack;
pub mod tls;
mod tunnel;
pub mod udp;
pub mod upstream;

pub use http::{Guard, Violation};
pub use names::Names;
pub use network::{Config, Network, NetworkError};
pub use report::Reporter;
pub use stack::Link;
