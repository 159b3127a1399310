//! What host and guest say to each other: frames, ports, messages, limits, version.
//!
//! Nothing here does I/O, and everything that reads bytes from the other side is a total
//! function: hostile input gives a typed error, never a panic and never unbounded memory.
//!
//! Layers, lowest first: [`frame`] (the multiplexer's header) → [`mux`] (streams with credit)
//! → [`message`] (length-prefixed values on one stream) → [`boot`], [`agent`], [`forward`] (the values).

pub mod agent;
pub mod boot;
pub mod class;
pub mod credit;
pub mod forward;
pub mod frame;
pub mod message;
pub mod mux;

/// Version of everything in this crate. Host and guest binary are built together, and the guest
/// says this number first; another number is refused rather than guessed at.
pub const VERSION: u32 = 4;

/// Name of the virtio-serial port that carries the multiplexer
/// (`/sys/class/virtio-ports/*/name` in the guest), where the VMM has such ports.
pub const CHANNEL_NAME: &str = "matchlock";

/// The vsock port that carries the multiplexer, where the VMM has vsock instead: the guest listens, and
/// the host connects, once.
pub const CHANNEL_PORT: u32 = 5100;

/// A service on one side of the channel, as vsock port numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Port {
    /// The guest listens: one stream per [`agent::Request`].
    Exec = 5000,
    /// The host listens: the guest connects once, says [`boot::Hello`], and keeps the stream open.
    Boot = 5002,
    /// The guest listens: one stream per [`forward::Connect`].
    Forward = 5003,
}

impl Port {
    /// The port of that number, if it is one of ours.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Exec, Self::Boot, Self::Forward].into_iter().find(|port| *port as u32 == number)
    }
}
