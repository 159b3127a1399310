//! The guest's link, and the TCP/IP stack at its other end. It runs on a thread of its own and hands up
//! connections and datagrams; it decides only what is well-formed, not what is allowed.
//!
//! ```text
//! link ─ inbox ─ filter ─┬─ answer (ARP, NDP, ping) ──────────── outbox ─ link
//!                        ├─ flow: Syn ─ accept ─ Stream (smoltcp) ───┤
//!                        └─ Datagram ─ … ─ Replies ──────────────────┘
//! ```

mod answer;
mod checksum;
mod datagram;
mod device;
mod engine;
pub mod filter;
mod flow;
mod inbox;
mod last;
mod link;
mod outbox;
mod shared;
mod stream;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

pub use datagram::{Datagram, Replies};
pub use filter::Dropped;
pub use link::{Link, LinkError};
pub use stream::{Stream, Syn};

use engine::Engine;
use shared::Shared;

/// The least bytes of the longest packet: what IPv6 demands (RFC 8200, 5).
pub const MIN_MTU: u16 = 1280;
/// The most: the longest IPv4 packet, less what keeps TCP's part of it aligned.
pub const MAX_MTU: u16 = 65_520;
/// As few frames as can be: each costs the guest's kernel and the VMM, and no wire limits them.
pub const DEFAULT_MTU: u16 = MAX_MTU;

/// How the link is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of the longest IP packet, in both directions. The guest is told the same.
    pub mtu: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self { mtu: DEFAULT_MTU }
    }
}

/// What the guest wants. Both end when the link does.
pub struct Incoming {
    /// Connections, not yet answered.
    pub tcp: mpsc::Receiver<Syn>,
    /// Datagrams to anybody.
    pub udp: mpsc::Receiver<Datagram>,
}

/// The stack. Dropping it ends its thread, and resets every stream on the host's side.
pub struct Stack {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the stack on a link to a VMM.
pub fn start(link: Link, settings: Settings) -> io::Result<(Stack, Incoming)> {
    if !(MIN_MTU..=MAX_MTU).contains(&settings.mtu) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the MTU is out of range"));
    }
    let link = link.start(settings.mtu)?;
    let shared = Arc::new(Shared::new(settings.mtu)?);
    let (tcp_sender, tcp) = mpsc::channel(engine::PENDING);
    let (udp_sender, udp) = mpsc::channel(engine::DATAGRAMS);
    let engine = Engine::new(link, shared.clone(), tcp_sender, udp_sender);
    let thread = std::thread::Builder::new().name("network".into()).spawn(move || engine.run())?;
    Ok((Stack { shared, thread: Some(thread) }, Incoming { tcp, udp }))
}

impl Stack {
    /// The way of datagrams to the guest.
    pub fn replies(&self) -> Replies {
        Replies(self.shared.clone())
    }

    /// Why the link ended, if it did.
    pub fn fault(&self) -> Option<&LinkError> {
        self.shared.fault.get()
    }

    /// Ends the thread, without waiting for it: the kernel may take a while to let go of the link.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// How many frames of the guest's were dropped, by the reason.
    pub fn dropped(&self) -> impl Iterator<Item = (Dropped, u64)> {
        self.shared.dropped()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // It does not wait for anything but us. If it panicked, that was reported.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
