//! UDP: whole datagrams, in both directions, without sockets. What is done with them is not decided here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::answer;
use super::shared::{DATAGRAM_FLOOR, Shared};
use crate::addresses::guest_like;

/// Bytes of datagrams from the guest that may be held at once, be it here or by whoever took them: a guest
/// that sends faster than they are dealt with loses them.
const DATAGRAMS_IN: usize = 4 * 1024 * 1024;

/// A UDP datagram of the guest's.
#[derive(Debug, Clone)]
pub struct Datagram {
    /// The guest's end.
    pub source: SocketAddr,
    /// To whom it is.
    pub destination: SocketAddr,
    /// What is in it. It counts against a limit until it is dropped.
    pub payload: Bytes,
}

impl Datagram {
    /// A copy of what the guest sent, unless there is too much already.
    pub(super) fn copy(
        source: SocketAddr,
        destination: SocketAddr,
        payload: &[u8],
        shared: &Shared,
    ) -> Option<Self> {
        let size = payload.len().max(DATAGRAM_FLOOR);
        let held = shared.datagrams.clone();
        if held.fetch_add(size, Ordering::Relaxed) + size > DATAGRAMS_IN {
            held.fetch_sub(size, Ordering::Relaxed);
            return None;
        }
        let payload = Bytes::from_owner(Counted { data: payload.into(), size, held });
        Some(Self { source, destination, payload })
    }
}

struct Counted {
    data: Box<[u8]>,
    size: usize,
    held: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// The way of datagrams to the guest.
#[derive(Clone)]
pub struct Replies(pub(super) Arc<Shared>);

impl Replies {
    /// Sends a datagram to the guest's address `to`. False if that is not the guest's, if it does not fit
    /// into one packet, or if too many wait: datagrams may be lost.
    pub fn send(&self, from: SocketAddr, to: SocketAddr, payload: Bytes) -> bool {
        to.ip() == guest_like(from.ip())
            && from.ip() != to.ip()
            && answer::datagram_len(from, payload.len()) <= usize::from(self.0.mtu)
            && self.0.send(from, to.port(), payload)
    }
}
