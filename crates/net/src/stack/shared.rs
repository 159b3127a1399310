//! What the stack's thread and the tasks on tokio share: who wants the thread, and how much there is of what.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use rustix::event::{EventfdFlags, eventfd};

use super::filter::Dropped;
use super::flow::Flow;
use super::link::LinkError;

/// Bytes of datagrams that wait for the link: more come from hosts than the guest takes.
const DATAGRAMS_OUT: usize = 1024 * 1024;

pub(super) struct Shared {
    /// Bytes of the longest IP packet.
    pub(super) mtu: u16,
    /// Flows that there are, in whatever phase, until nobody holds them.
    pub(super) flows: AtomicUsize,
    /// SYNs that were handed up and not answered.
    pub(super) pending: AtomicUsize,
    /// Bytes set aside for buffers of flows.
    pub(super) reserved: AtomicUsize,
    /// Bytes of datagrams from the guest that somebody holds.
    pub(super) datagrams: Arc<AtomicUsize>,
    /// Why the link ended.
    pub(super) fault: OnceLock<LinkError>,
    work: Mutex<Work>,
    /// Whether the thread waits, or is about to: only then it must be woken.
    asleep: AtomicBool,
    stopped: AtomicBool,
    alarm: OwnedFd,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

/// What the thread has to do.
#[derive(Default)]
pub(super) struct Work {
    /// Flows with something new.
    pub(super) flows: Vec<Arc<Flow>>,
    /// Datagrams to the guest: from, to its port, what.
    pub(super) datagrams: VecDeque<(SocketAddr, u16, Bytes)>,
    datagram_bytes: usize,
}

impl Shared {
    pub(super) fn new(mtu: u16) -> io::Result<Self> {
        Ok(Self {
            mtu,
            flows: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            datagrams: Arc::default(),
            fault: OnceLock::new(),
            work: Mutex::default(),
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            alarm: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            dropped: Default::default(),
        })
    }

    /// Asks the thread to look at a flow. Cheap when it was asked already, or is at work.
    pub(super) fn note(&self, flow: &Arc<Flow>) {
        if !flow.noted.swap(true, Ordering::SeqCst) && !self.is_stopped() {
            self.work().flows.push(flow.clone());
            self.wake();
        }
    }

    /// Queues a datagram to the guest; false if there are too many.
    pub(super) fn send(&self, from: SocketAddr, port: u16, payload: Bytes) -> bool {
        let mut work = self.work();
        if self.is_stopped() || work.datagram_bytes + payload.len() > DATAGRAMS_OUT {
            return false;
        }
        // A floor for each, so that empty ones are not without number.
        work.datagram_bytes += payload.len().max(DATAGRAM_FLOOR);
        work.datagrams.push_back((from, port, payload));
        drop(work);
        self.wake();
        true
    }

    /// Takes the next datagram to the guest.
    pub(super) fn next_datagram(&self) -> Option<(SocketAddr, u16, Bytes)> {
        let mut work = self.work();
        let next = work.datagrams.pop_front()?;
        work.datagram_bytes -= next.2.len().max(DATAGRAM_FLOOR);
        Some(next)
    }

    /// Takes the flows with something new, for which `into` has room.
    pub(super) fn take_flows(&self, into: &mut Vec<Arc<Flow>>) {
        std::mem::swap(&mut self.work().flows, into);
    }

    /// Says that the thread is about to wait; false if it must not, since there is work.
    pub(super) fn fall_asleep(&self, can_send: bool) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let work = self.work();
        let idle = work.flows.is_empty() && (work.datagrams.is_empty() || !can_send) && !self.is_stopped();
        if !idle {
            self.asleep.store(false, Ordering::SeqCst);
        }
        idle
    }

    /// Says that the thread no longer waits.
    pub(super) fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
        // What was written is of no interest, nor whether anything was.
        let _ = rustix::io::read(&self.alarm, &mut [0; 8]);
    }

    /// What is readable when the thread is to be woken.
    pub(super) fn alarm(&self) -> impl AsFd {
        &self.alarm
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Counts a dropped frame.
    pub(super) fn count(&self, why: Dropped) {
        self.dropped[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many frames were dropped, and why.
    pub(super) fn dropped(&self) -> impl Iterator<Item = (Dropped, u64)> {
        Dropped::ALL.into_iter().map(|why| (why, self.dropped[why as usize].load(Ordering::Relaxed)))
    }

    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // It fails only when the counter is full, and then the thread is woken already.
            let _ = rustix::io::write(&self.alarm, &1_u64.to_ne_bytes());
        }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a datagram counts at least.
pub(super) const DATAGRAM_FLOOR: usize = 256;

/// One of a limited number, given back when dropped.
pub(super) struct Share {
    of: fn(&Shared) -> &AtomicUsize,
    amount: usize,
    shared: Arc<Shared>,
}

impl Share {
    /// Takes `amount`, unless that makes more than `limit`.
    pub(super) fn take(
        shared: &Arc<Shared>,
        of: fn(&Shared) -> &AtomicUsize,
        amount: usize,
        limit: usize,
    ) -> Option<Self> {
        let counter = of(shared);
        counter
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
                (taken + amount <= limit).then_some(taken + amount)
            })
            .ok()?;
        Some(Self { of, amount, shared: shared.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        (self.of)(&self.shared).fetch_sub(self.amount, Ordering::SeqCst);
    }
}
