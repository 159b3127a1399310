//! Streams between host and guest: [`Channel::connect`] to a port of the host, [`Channel::listen`] on
//! one of ours.
//!
//! They share one virtio-serial port through [`proto::mux`]. One thread reads it and never waits for
//! anything but the host; whoever sends writes its frames itself, one locked write each. Who uses a
//! [`Stream`] cannot tell what carries it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use proto::Port;
use proto::frame::{FrameError, HEADER_LEN, Header, Reason, StreamId};
use proto::mux::{Event, Mux, MuxError, Side};
use thiserror::Error;

pub(crate) use events::Events;
use events::Waker;
pub(crate) use stream::{Read, Stream, StreamError};

mod events;
mod stream;
#[cfg(test)]
mod tests;

/// The longest payload that we put into a frame: with its header it is what Linux's virtio console
/// driver takes in one write.
pub(crate) const CHUNK: usize = 32 * 1024 - HEADROOM;

/// Bytes before a payload that [`Stream::write_in_place`] needs.
pub(crate) const HEADROOM: usize = HEADER_LEN;

/// Why the channel ended.
#[derive(Debug, Error)]
pub(crate) enum ChannelError {
    /// The host closed it.
    #[error("the host closed the channel")]
    Closed,
    /// Reading it failed.
    #[error("cannot read the channel")]
    Io(#[source] io::Error),
    /// What came is no frame.
    #[error("the host sent a malformed frame")]
    Frame(#[source] FrameError),
    /// A frame that breaks the rules.
    #[error("the host broke the rules of the channel")]
    Mux(#[source] MuxError),
}

/// The connection to the host. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Channel(Arc<Shared>);

/// A port of ours that the host may open streams to.
#[derive(Debug)]
pub(crate) struct Listener {
    channel: Channel,
    port: Port,
    /// Whom [`Listener::accept`] waits for.
    arrived: Arc<Condvar>,
}

#[derive(Debug)]
struct Shared {
    writer: Mutex<Writer>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Writer {
    device: File,
    frame: Vec<u8>,
}

#[derive(Debug)]
struct State {
    mux: Mux,
    flows: HashMap<StreamId, Flow>,
    listeners: HashMap<u32, Waiting>,
    closed: bool,
}

/// Streams that the host has opened and nobody has accepted yet.
#[derive(Debug)]
struct Waiting {
    streams: VecDeque<StreamId>,
    waker: Waker,
}

/// Our end of one stream.
struct Flow {
    /// What has arrived and was not read, at most its [`proto::class::Class::window`].
    inbox: VecDeque<u8>,
    /// Woken by everything that happens to this stream.
    waker: Waker,
    peer_finished: bool,
    we_finished: bool,
    reset: Option<Reason>,
    /// Nobody will read it: what arrives is dropped.
    unread: bool,
    /// Nobody holds its [`Stream`] any more.
    abandoned: bool,
    on_reset: Option<Box<dyn FnOnce() + Send>>,
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow")
            .field("inbox", &self.inbox.len())
            .field("reset", &self.reset)
            .finish_non_exhaustive()
    }
}

impl Flow {
    fn new(waker: Waker) -> Self {
        Self {
            inbox: VecDeque::new(),
            waker,
            peer_finished: false,
            we_finished: false,
            reset: None,
            unread: false,
            abandoned: false,
            on_reset: None,
        }
    }

    /// Of a stream that threads wait for.
    fn waited_for() -> Self {
        Self::new(Waker::Threads(Arc::default()))
    }
}

impl Channel {
    /// Starts the channel on `device`, a byte stream to the host that is connected. When it ends,
    /// `on_end` is called once with the reason.
    pub(crate) fn start(
        device: File,
        on_end: impl FnOnce(ChannelError) + Send + 'static,
    ) -> io::Result<Self> {
        let reader = device.try_clone()?;
        let shared = Arc::new(Shared {
            writer: Mutex::new(Writer { device, frame: Vec::with_capacity(HEADER_LEN + CHUNK) }),
            state: Mutex::new(State {
                mux: Mux::new(Side::Guest),
                flows: HashMap::new(),
                listeners: HashMap::new(),
                closed: false,
            }),
        });
        let channel = Self(shared);
        let demux = channel.clone();
        thread::Builder::new().name("channel".to_owned()).spawn(move || {
            let error = demux.receive_all(reader);
            demux.0.close();
            on_end(error);
        })?;
        Ok(channel)
    }

    /// Opens a stream to the host's `port`.
    pub(crate) fn connect(&self, port: Port) -> Result<Stream, StreamError> {
        let (id, header) = {
            let mut state = self.0.state();
            let (id, header) = state.mux.open(port as u32).map_err(StreamError::TooMany)?;
            state.flows.insert(id, Flow::waited_for());
            (id, header)
        };
        let stream = Stream::new(self.clone(), id);
        self.0.write(header, &[])?;
        Ok(stream)
    }

    /// Listens on `port`; streams to ports where nobody listens are refused.
    pub(crate) fn listen(&self, port: Port) -> Listener {
        let arrived = Arc::new(Condvar::new());
        self.listen_with(port, Waker::Threads(Arc::clone(&arrived)));
        Listener { channel: self.clone(), port, arrived }
    }

    /// Listens on `port`; what happens on it and to its streams is told to `events`, and nobody has to
    /// wait: there is [`Listener::try_accept`], [`Stream::try_read`], [`Stream::room`].
    pub(crate) fn listen_all(&self, port: Port, events: Events) -> Listener {
        self.listen_with(port, Waker::Events(events));
        Listener { channel: self.clone(), port, arrived: Arc::default() }
    }

    fn listen_with(&self, port: Port, waker: Waker) {
        let waiting = Waiting { streams: VecDeque::new(), waker };
        self.0.state().listeners.insert(port as u32, waiting);
    }

    fn receive_all(&self, mut device: File) -> ChannelError {
        let mut payload = Vec::new();
        loop {
            if let Err(error) = self.receive(&mut device, &mut payload) {
                return error;
            }
        }
    }

    fn receive(&self, device: &mut File, payload: &mut Vec<u8>) -> Result<(), ChannelError> {
        let mut header = [0; HEADER_LEN];
        read_exact(device, &mut header)?;
        let header = Header::decode(&header).map_err(ChannelError::Frame)?;
        payload.resize(header.payload_len(), 0);
        read_exact(device, payload)?;

        let mut state = self.0.state();
        let event = state.mux.receive(header).map_err(ChannelError::Mux)?;
        let (answer, hook) = state.react(event, payload);
        drop(state);
        if let Some(answer) = answer {
            self.0.write(answer, &[]).map_err(ChannelError::Io)?;
        }
        if let Some(hook) = hook {
            hook();
        }
        Ok(())
    }
}

impl Listener {
    /// Waits for the next stream; `None` when the channel has ended.
    pub(crate) fn accept(&self) -> Option<Stream> {
        let mut state = self.channel.0.state();
        loop {
            let waiting = state.listeners.get_mut(&(self.port as u32))?;
            if let Some(id) = waiting.streams.pop_front() {
                drop(state);
                return Some(Stream::new(self.channel.clone(), id));
            }
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether there will be no more streams.
    pub(crate) fn is_closed(&self) -> bool {
        self.channel.0.state().closed
    }

    /// The next stream, if one waits.
    pub(crate) fn try_accept(&self) -> Option<Stream> {
        let id = self.channel.0.state().listeners.get_mut(&(self.port as u32))?.streams.pop_front()?;
        Some(Stream::new(self.channel.clone(), id))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one frame, whose payload is `parts` one after the other, in one write.
    fn write(&self, header: Header, parts: &[&[u8]]) -> io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Writer { device, frame } = &mut *writer;
        frame.clear();
        frame.extend_from_slice(&header.encode());
        for part in parts {
            frame.extend_from_slice(part);
        }
        device.write_all(frame)
    }

    /// Sends one frame, which is complete.
    fn write_frame(&self, frame: &[u8]) -> io::Result<()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).device.write_all(frame)
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        for (stream, flow) in &state.flows {
            flow.waker.changed(*stream);
        }
        for waiting in state.listeners.values() {
            waiting.waker.arrived();
        }
    }
}

type Hook = Box<dyn FnOnce() + Send>;

impl State {
    /// Does what `event` asks for; gives the frame to answer with, and the hook to call, if any.
    fn react(&mut self, event: Event, payload: &[u8]) -> (Option<Header>, Option<Hook>) {
        match event {
            Event::Opened { stream, port } => return (self.opened(stream, port), None),
            Event::Overload { answer } => return (Some(answer), None),
            Event::Data { stream, .. } => return (self.arrived(stream, payload), None),
            Event::Writable { stream } => {
                if let Some(flow) = self.flows.get(&stream) {
                    flow.waker.changed(stream);
                }
            }
            Event::Finished { stream } => {
                if let Some(flow) = self.flows.get_mut(&stream) {
                    flow.peer_finished = true;
                    flow.waker.changed(stream);
                }
                self.forget_if_over(stream);
            }
            Event::Reset { stream, reason } => return (None, self.was_reset(stream, reason)),
            Event::Stale { .. } => {}
        }
        (None, None)
    }

    fn opened(&mut self, stream: StreamId, port: u32) -> Option<Header> {
        let Some(waiting) = self.listeners.get_mut(&port) else {
            return self.mux.reset(stream, Reason::Refused);
        };
        waiting.streams.push_back(stream);
        waiting.waker.arrived();
        let flow = match &waiting.waker {
            Waker::Threads(_) => Flow::waited_for(),
            Waker::Events(_) => Flow::new(waiting.waker.clone()),
        };
        self.flows.insert(stream, flow);
        None
    }

    fn arrived(&mut self, stream: StreamId, payload: &[u8]) -> Option<Header> {
        let flow = self.flows.get_mut(&stream)?;
        if flow.unread {
            return self.mux.taken(stream, payload.len());
        }
        flow.inbox.extend(payload);
        flow.waker.changed(stream);
        None
    }

    fn was_reset(&mut self, stream: StreamId, reason: Reason) -> Option<Hook> {
        let flow = self.flows.get_mut(&stream)?;
        flow.reset = Some(reason);
        flow.waker.changed(stream);
        let hook = flow.on_reset.take();
        self.forget_if_over(stream);
        hook
    }

    /// Drops what nobody on either side will ask for again.
    fn forget_if_over(&mut self, stream: StreamId) {
        let over =
            |flow: &Flow| flow.abandoned && (flow.reset.is_some() || flow.peer_finished && flow.we_finished);
        if self.flows.get(&stream).is_some_and(over) {
            self.flows.remove(&stream);
        }
    }
}

fn read_exact(device: &mut File, buffer: &mut [u8]) -> Result<(), ChannelError> {
    device.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ChannelError::Closed,
        _ => ChannelError::Io(error),
    })
}
