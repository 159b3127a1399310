//! What the streams and the pump share: the multiplexer's rules, buffers, wakers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use proto::Port;
use proto::frame::{Header, Reason, StreamId};
use proto::mux::{Event, Mux, Side};
use tokio::sync::Notify;

use super::ChannelError;
use super::pump::Inbox;

/// Bytes in the queue to the guest from which on streams have to wait. More makes no difference
/// to throughput (the socket's own buffer is smaller), less does.
pub(super) const QUEUE_LIMIT: usize = 256 * 1024;

/// Bytes in the queue from which on the guest is not listened to. Streams stop well below it, so
/// what fills the rest are answers that the guest provokes and does not read. (If data alone could
/// stop us from reading, two sides that both wait for the other to read would wait for ever.)
const ANSWER_LIMIT: usize = 2 * QUEUE_LIMIT;

/// Streams of the guest that may wait to be accepted, for each port. An honest guest opens one; a
/// hostile one gets no more buffers than these.
pub(super) const MAX_WAITING: usize = 8;

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// The queue is not empty.
    pub(super) to_send: Notify,
    /// The queue is below its limit again, or the guest deaf: the pump may go on reading.
    room: Notify,
    /// Another stream waits for [`Shared::accept`], or the channel ended.
    arrived: Notify,
}

/// One stream's share of the state; lives as long as its [`super::Stream`] or, before that, in the
/// queue of those to be accepted.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// What arrived and was not read yet; at most a window of credit.
    pub(super) received: VecDeque<u8>,
    /// The guest will send no more.
    pub(super) peer_finished: bool,
    pub(super) reset: Option<Reason>,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) mux: Mux,
    pub(super) flows: HashMap<StreamId, Flow>,
    /// Streams opened by the guest, by our port.
    waiting: HashMap<u32, VecDeque<StreamId>>,
    /// Encoded frames for the guest.
    queue: Vec<u8>,
    /// The guest reads no more: what is said to it is dropped.
    deaf: bool,
    end: Option<ChannelError>,
}

impl Shared {
    pub(super) fn new(listen: &[Port]) -> Self {
        let state = State {
            mux: Mux::new(Side::Host),
            flows: HashMap::new(),
            waiting: listen.iter().map(|port| (*port as u32, VecDeque::new())).collect(),
            queue: Vec::new(),
            deaf: false,
            end: None,
        };
        Self { state: Mutex::new(state), to_send: Notify::new(), room: Notify::new(), arrived: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock leaves the state half-changed, so a panic elsewhere is no reason
        // to lose the sandbox's other streams.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open(&self, port: u32) -> Result<StreamId, ChannelError> {
        let mut state = self.lock();
        state.alive()?;
        let (id, header) = state.mux.open(port).map_err(ChannelError::TooManyStreams)?;
        state.flows.insert(id, Flow::default());
        self.send(&mut state, header, &[]);
        Ok(id)
    }

    pub(super) async fn accept(&self, port: u32) -> Result<StreamId, ChannelError> {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            // Registered before looking, so that no wake-up is lost in between.
            arrived.as_mut().enable();
            {
                let mut state = self.lock();
                if let Some(id) = state.waiting.get_mut(&port).and_then(VecDeque::pop_front) {
                    return Ok(id);
                }
                state.alive()?;
            }
            arrived.await;
        }
    }

    pub(super) async fn ended(&self) -> ChannelError {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if let Err(end) = self.lock().alive() {
                return end;
            }
            arrived.await;
        }
    }

    /// Queues one frame.
    pub(super) fn send(&self, state: &mut State, header: Header, payload: &[u8]) {
        debug_assert_eq!(header.payload_len(), payload.len());
        if state.deaf || state.end.is_some() {
            return;
        }
        state.queue.extend_from_slice(&header.encode());
        state.queue.extend_from_slice(payload);
        self.to_send.notify_one();
    }

    /// Moves the queue into `batch`, which is empty.
    pub(super) fn take_queue(&self, batch: &mut Vec<u8>) {
        let mut state = self.lock();
        if state.full() {
            state.flows.values_mut().for_each(|flow| wake(&mut flow.writer));
            self.room.notify_one();
        }
        std::mem::swap(&mut state.queue, batch);
    }

    /// The guest reads no more. Nobody takes the queue then, so nobody may wait for room in it: the pump would
    /// never read the guest's end.
    pub(super) fn deafen(&self) {
        let mut state = self.lock();
        state.deaf = true;
        state.queue = Vec::new();
        state.flows.values_mut().for_each(|flow| wake(&mut flow.writer));
        self.room.notify_one();
    }

    /// Waits until there is room for the answers to what is read next.
    pub(super) async fn room_to_answer(&self) {
        while self.lock().queue.len() >= ANSWER_LIMIT {
            self.room.notified().await;
        }
    }

    /// Acts on every complete frame in `inbox`.
    pub(super) fn receive_all(&self, inbox: &mut Inbox) -> Result<(), ChannelError> {
        let mut state = self.lock();
        while let Some((header, payload)) = inbox.next().map_err(ChannelError::Frame)? {
            self.receive(&mut state, header, payload)?;
        }
        Ok(())
    }

    /// Acts on one header from the guest, whose `payload` is complete.
    fn receive(&self, state: &mut State, header: Header, payload: &[u8]) -> Result<(), ChannelError> {
        match state.mux.receive(header).map_err(ChannelError::Mux)? {
            Event::Opened { stream, port } => match state.waiting.get_mut(&port) {
                Some(waiting) if waiting.len() >= MAX_WAITING => {
                    self.reset(state, stream, Reason::TooManyStreams);
                }
                Some(waiting) => {
                    waiting.push_back(stream);
                    state.flows.insert(stream, Flow::default());
                    self.arrived.notify_waiters();
                }
                None => self.reset(state, stream, Reason::Refused),
            },
            Event::Data { stream, .. } => state.with(stream, |flow| {
                flow.received.extend(payload);
                wake(&mut flow.reader);
            }),
            Event::Writable { stream } => state.with(stream, |flow| wake(&mut flow.writer)),
            Event::Finished { stream } => state.with(stream, |flow| {
                flow.peer_finished = true;
                wake(&mut flow.reader);
            }),
            Event::Reset { stream, reason } => state.was_reset(stream, reason),
            Event::Overload { answer } => self.send(state, answer, &[]),
            Event::Stale { .. } => {}
        }
        Ok(())
    }

    /// Gives a stream up in both directions.
    pub(super) fn reset(&self, state: &mut State, stream: StreamId, reason: Reason) {
        if let Some(header) = state.mux.reset(stream, reason) {
            self.send(state, header, &[]);
        }
    }

    /// The channel is over: everybody who waits learns why. What has arrived stays readable.
    pub(super) fn finish(&self, end: ChannelError) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        state.queue = Vec::new();
        for flow in state.flows.values_mut() {
            wake(&mut flow.reader);
            wake(&mut flow.writer);
        }
        self.arrived.notify_waiters();
    }
}

impl State {
    /// Whether streams have to wait.
    pub(super) fn full(&self) -> bool {
        self.queue.len() >= QUEUE_LIMIT
    }

    /// Bytes in the queue.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn alive(&self) -> Result<(), ChannelError> {
        self.end.clone().map_or(Ok(()), Err)
    }

    fn with(&mut self, stream: StreamId, change: impl FnOnce(&mut Flow)) {
        // A stream that the multiplexer knows has a flow: both are dropped together.
        if let Some(flow) = self.flows.get_mut(&stream) {
            change(flow);
        }
    }

    fn was_reset(&mut self, stream: StreamId, reason: Reason) {
        let waiting = self.waiting.values_mut().find_map(|waiting| {
            let at = waiting.iter().position(|id| *id == stream)?;
            waiting.remove(at)
        });
        if waiting.is_some() {
            // Nobody has seen it: opening and resetting for ever must not fill our memory.
            self.flows.remove(&stream);
        }
        self.with(stream, |flow| {
            flow.reset = Some(reason);
            flow.received = VecDeque::new();
            wake(&mut flow.reader);
            wake(&mut flow.writer);
        });
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Remembers who waits, and waits.
pub(super) fn wait<T>(slot: &mut Option<Waker>, context: &Context<'_>) -> Poll<T> {
    match slot {
        Some(waker) if waker.will_wake(context.waker()) => {}
        _ => *slot = Some(context.waker().clone()),
    }
    Poll::Pending
}
