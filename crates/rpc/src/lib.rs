//! JSON-RPC 2.0 between the process that owns a sandbox and its clients, one object per line.
//!
//! [`session::run`] serves one client over any transport, [`server::serve`] many over the Unix socket
//! of [`socket::bind`]; both ask a [`Host`] for everything that concerns the sandbox, which
//! [`Server`] is for one that runs. [`client`] is the other end, and [`end`] the way to end a sandbox
//! from there whatever became of its owner. What is said is in [`api::rpc`].
//!
//! Clients are programs of the sandbox's own user; the guest behind them is hostile. So every queue
//! has a bound, and whoever does not read makes others wait, down to the command in the guest.

pub mod client;
mod command;
mod end;
mod host;
mod input;
mod line;
mod message;
mod method;
mod outgoing;
mod owner;
mod requests;
pub mod server;
mod service;
pub mod session;
pub mod socket;

pub use end::{EndError, end};
pub use host::Host;
pub use line::MAX_LINE;
pub use method::Methods;
pub use owner::{ServeError, Server};
pub use requests::MAX_REQUESTS;
pub use service::Service;

#[cfg(test)]
mod tests;
