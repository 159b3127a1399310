//! One conversation over UDP: a socket on the host that is connected to the other end, so that the kernel
//! lets in datagrams of that end only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::event::NetworkEvent;
use bytes::Bytes;
use policy::Admitted;
use rustix::net::SendFlags;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::{IDLE, Key, event};
use crate::stack::Replies;

/// Bytes of the longest datagram.
const LONGEST: usize = 65_535;
/// Datagrams that are received before others have their turn.
const BURST: usize = 64;

/// The end that sends. Dropping it ends the conversation.
pub(super) struct Mapping {
    shared: Arc<Shared>,
    number: u64,
    _stop: oneshot::Sender<()>,
}

/// The end that receives.
pub(super) struct Task {
    shared: Arc<Shared>,
    key: Key,
    rule: String,
    replies: Replies,
    stopped: oneshot::Receiver<()>,
}

struct Shared {
    socket: UdpSocket,
    /// When a datagram last passed, in either direction.
    last: Mutex<Instant>,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Mapping {
    /// A socket for a destination that the policy admits.
    pub(super) fn open(
        key: Key,
        number: u64,
        admitted: &Admitted,
        replies: Replies,
    ) -> io::Result<(Self, Task)> {
        let any = match admitted.address().ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(admitted.address())?;
        socket.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            socket: UdpSocket::from_std(socket)?,
            last: Mutex::new(Instant::now()),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let rule = admitted.rule().to_owned();
        let task = Task { shared: shared.clone(), key, rule, replies, stopped };
        Ok((Self { shared, number, _stop: stop }, task))
    }

    /// Sends, or loses it.
    pub(super) fn send(&self, payload: &[u8]) {
        // Not through tokio, which would first wait to hear that a new socket can be written to.
        if rustix::net::send(&self.shared.socket, payload, SendFlags::NOSIGNAL).is_ok() {
            self.shared.sent.fetch_add(payload.len() as u64, Ordering::Relaxed);
            *self.shared.last() = Instant::now();
        }
    }

    /// When a datagram last passed.
    pub(super) fn last(&self) -> Instant {
        *self.shared.last()
    }

    /// Tells it from a later one with the same ends.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Task {
    /// Receives until there was nothing for long enough, or it is stopped. What there was to tell of it.
    pub(super) async fn run(mut self) -> NetworkEvent {
        let began = Instant::now();
        loop {
            let until = *self.shared.last() + IDLE;
            tokio::select! {
                _ = &mut self.stopped => break,
                () = sleep_until(until) => if *self.shared.last() + IDLE <= Instant::now() { break },
                ready = self.shared.socket.readable() => if ready.is_err() || !self.receive() { break },
            }
        }
        NetworkEvent {
            request_bytes: self.shared.sent.load(Ordering::Relaxed),
            response_bytes: self.shared.received.load(Ordering::Relaxed),
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            rule: Some(self.rule),
            ..event(self.key.1)
        }
    }

    /// Hands on what has come. Whether more can come.
    fn receive(&self) -> bool {
        // Only while there is something, so that a silent conversation takes next to no memory.
        let mut buffer = vec![0; LONGEST];
        let (guest, other) = self.key;
        for _ in 0..BURST {
            match self.shared.socket.try_recv(&mut buffer) {
                Ok(length) => {
                    self.shared.received.fetch_add(length as u64, Ordering::Relaxed);
                    *self.shared.last() = Instant::now();
                    self.replies.send(other, guest, Bytes::copy_from_slice(&buffer[..length]));
                }
                // Nobody listens there: the guest finds out by itself.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

impl Shared {
    fn last(&self) -> MutexGuard<'_, Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
