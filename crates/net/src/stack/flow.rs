//! One TCP connection of the guest's, in the hands of both the stack's thread and a task on tokio.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Duration;
use smoltcp::wire::IpListenEndpoint;

use super::filter::Segment;
use super::shared::{Share, Shared};

/// Connections that there may be. Each costs memory and a task: more is a guest that wants to exhaust them.
pub(super) const FLOWS: usize = 4096;
/// Bytes that all connections' buffers share before new ones get the smallest.
pub(super) const BUFFERS: usize = 96 * 1024 * 1024;
/// The part of what is left of them that a new connection gets for each direction.
const PART: usize = 128;
/// Bytes buffered each way by a connection when there are few: enough to keep the link busy while the
/// other side is not scheduled.
pub(super) const LARGEST: usize = WINDOW << 3;
/// The largest window without scaling. A larger buffer is this, shifted, and nothing in between: after its
/// SYN-ACK smoltcp takes the window that was in it, which is not scaled, for a scaled one. Were that more
/// than the buffer, a guest that uses it would make smoltcp panic.
const WINDOW: usize = 0xffff;
/// The same when there are many.
pub(super) const SMALLEST: usize = 32 * 1024;
/// How long a connection is silent before the guest is asked whether it still knows of it.
const KEEP_ALIVE: Duration = Duration::from_secs(600);
/// How long the guest may be silent, then: a few of those questions.
const DEAD: Duration = Duration::from_secs(2100);

/// By what a connection is known. The guest has one address of each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) port: u16,
    pub(super) destination: SocketAddr,
}

pub(super) struct Flow {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// Tells it from a later one with the same ends.
    pub(super) number: u64,
    /// Whether the thread was asked to look at it.
    pub(super) noted: AtomicBool,
    state: Mutex<State>,
    _share: Share,
}

pub(super) struct State {
    pub(super) phase: Phase,
    /// Where the guest counts its bytes from.
    pub(super) sequence: i32,
    /// Who waits for bytes or the end of them.
    pub(super) reader: Option<Waker>,
    /// Who waits for room.
    pub(super) writer: Option<Waker>,
    /// No more is written: a FIN is to follow.
    pub(super) shut: bool,
    /// It is to be broken off.
    pub(super) aborted: bool,
    /// The task let go of it, after it had said that no more would follow.
    pub(super) released: Option<Instant>,
    /// Bytes read since the guest was last told of the window.
    pub(super) unannounced: usize,
    /// Bytes that waited to be read and to be acknowledged, when it was last looked at.
    pub(super) queued: (usize, usize),
    /// When that last changed.
    pub(super) active: Instant,
    /// The thread's: whether it is in the list of those to be served.
    pub(super) listed: bool,
    /// The thread's: whether it is in the list of those that wait for room.
    pub(super) blocked: bool,
    /// The thread's: when it is in the timers for.
    pub(super) timer: Option<Instant>,
}

pub(super) enum Phase {
    /// The guest waits for its answer; this is what it sent.
    Pending(Box<[u8]>),
    /// It is to get a reset.
    Refused(Box<[u8]>),
    /// It is to be answered.
    Accepted(Box<[u8]>, Connection),
    /// Open, or closing.
    Open(Connection),
    /// Nothing is left of it.
    Over,
}

/// The TCP state machine and buffers.
pub(super) struct Connection {
    pub(super) set: SocketSet<'static>,
    handle: SocketHandle,
    _buffers: Share,
}

impl Flow {
    pub(super) fn new(segment: &Segment<'_>, sequence: i32, number: u64, share: Share) -> Self {
        Self {
            source: segment.source,
            destination: segment.destination,
            number,
            noted: AtomicBool::new(false),
            state: Mutex::new(State {
                phase: Phase::Pending(segment.packet.into()),
                sequence,
                reader: None,
                writer: None,
                shut: false,
                aborted: false,
                released: None,
                unannounced: 0,
                queued: (0, 0),
                active: Instant::now(),
                listed: false,
                blocked: false,
                timer: None,
            }),
            _share: share,
        }
    }

    pub(super) fn key(&self) -> Key {
        Key { port: self.source.port(), destination: self.destination }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the connection that answers the SYN. Nothing is left to answer if the guest gave up.
    pub(super) fn accept(&self, shared: &Arc<Shared>) {
        let connection = Connection::new(self.destination, shared);
        let mut state = self.lock();
        state.phase = match std::mem::replace(&mut state.phase, Phase::Over) {
            Phase::Pending(syn) => Phase::Accepted(syn, connection),
            other => other,
        };
    }

    /// Lets the guest know that there will be no connection.
    pub(super) fn refuse(&self) {
        let mut state = self.lock();
        state.phase = match std::mem::replace(&mut state.phase, Phase::Over) {
            Phase::Pending(syn) => Phase::Refused(syn),
            other => other,
        };
    }

    /// Ends it at once, without telling the guest. Whoever waits for it is to be woken.
    pub(super) fn end(&self) -> Wakers {
        let mut state = self.lock();
        match &mut state.phase {
            // What was received can still be read.
            Phase::Open(connection) => connection.socket().abort(),
            phase => *phase = Phase::Over,
        }
        state.wakers(true)
    }
}

impl State {
    /// The state machine, once the SYN was accepted.
    pub(super) fn socket(&mut self) -> Option<&mut tcp::Socket<'static>> {
        match &mut self.phase {
            Phase::Accepted(_, connection) | Phase::Open(connection) => Some(connection.socket()),
            Phase::Pending(_) | Phase::Refused(_) | Phase::Over => None,
        }
    }

    /// Takes out who has something to do now, or everybody.
    pub(super) fn wakers(&mut self, all: bool) -> Wakers {
        let (mut read, mut write) = (all, all);
        if let Some(socket) = self.socket() {
            let opening = is_opening(socket);
            read |= socket.can_recv() || (!opening && !socket.may_recv());
            // Not for every few bytes: the writer would fill them and be woken again.
            let free = socket.send_capacity() - socket.send_queue();
            write |= !opening && (!socket.may_send() || free * 4 >= socket.send_capacity());
        }
        Wakers {
            reader: if read { self.reader.take() } else { None },
            writer: if write { self.writer.take() } else { None },
        }
    }
}

/// Whether the guest has not finished the handshake.
pub(super) fn is_opening(socket: &tcp::Socket<'_>) -> bool {
    matches!(socket.state(), tcp::State::Listen | tcp::State::SynReceived)
}

/// Tasks to be woken when the lock is no longer held.
#[must_use]
pub(super) struct Wakers {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Wakers {
    pub(super) fn wake(self) {
        for waker in [self.reader, self.writer].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// Bytes of each buffer of a connection when that many are left for all.
pub(super) fn buffer_size(left: usize) -> usize {
    let part = (left / PART).min(LARGEST);
    (0..=3).map(|shift| WINDOW << shift).rfind(|size| *size <= part).unwrap_or(SMALLEST)
}

impl Connection {
    fn new(destination: SocketAddr, shared: &Arc<Shared>) -> Self {
        let left = BUFFERS.saturating_sub(shared.reserved.load(Ordering::Relaxed));
        let size = buffer_size(left);
        let buffers = Share::take(shared, |shared| &shared.reserved, 2 * size, usize::MAX)
            .expect("there is no limit: FLOWS limits it");
        let buffer = || tcp::SocketBuffer::new(vec![0; size]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(DEAD));
        let address = match destination.ip() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        };
        socket
            .listen(IpListenEndpoint { addr: Some(address), port: destination.port() })
            .expect("the socket is new, and the filter lets no port 0 in");
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Self { set, handle, _buffers: buffers }
    }

    /// Whether the guest has said that it sends no more.
    pub(super) fn guest_is_done(&mut self) -> bool {
        use tcp::State::{CloseWait, Closing, LastAck, TimeWait};
        matches!(self.socket().state(), CloseWait | Closing | LastAck | TimeWait)
    }

    pub(super) fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.set.get_mut(self.handle)
    }
}
