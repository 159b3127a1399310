//! The stack's thread: it alone touches the link and smoltcp's interface. It never waits but for the link,
//! the alarm and the next timer, and what it does for one frame does not depend on how many flows there are.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as Moment;
use smoltcp::wire::HardwareAddress;
use tokio::sync::mpsc;

use super::answer;
use super::datagram::Datagram;
use super::device::Port;
use super::filter::{self, Dropped, Frame, Kind, Segment};
use super::flow::{FLOWS, Flow, Key, Phase, State};
use super::last;
use super::link::{LinkError, Wire};
use super::outbox::Outbox;
use super::shared::{Share, Shared};
use super::stream::Syn;

/// SYNs that wait for their answer. More is a flood; an honest guest repeats those that were dropped.
pub(super) const PENDING: usize = 512;
/// Datagrams that wait to be taken, besides the limit on their bytes.
pub(super) const DATAGRAMS: usize = 1024;
/// How long what was written before a shut-down is still offered to a guest that takes none of it.
const LINGER: Duration = Duration::from_secs(60);
/// How long a connection may be open without a byte in either direction.
const IDLE: Duration = Duration::from_secs(2 * 60 * 60);
/// The shortest sleep for a timer: keeps a timer that is not served by its own time from spinning.
const TICK: Duration = Duration::from_millis(1);

pub(super) struct Engine {
    link: Box<dyn Wire>,
    outbox: Outbox,
    core: Core,
}

/// Everything but the link.
struct Core {
    shared: Arc<Shared>,
    interface: Interface,
    /// A set without sockets: what it gets is answered with a reset.
    nobody: SocketSet<'static>,
    flows: HashMap<Key, Arc<Flow>>,
    /// Flows to be served in this turn.
    listed: Vec<Arc<Flow>>,
    /// Flows that could not send for lack of room.
    blocked: Vec<Arc<Flow>>,
    timers: BTreeMap<(Instant, u64), Arc<Flow>>,
    tcp: mpsc::Sender<Syn>,
    udp: mpsc::Sender<Datagram>,
    started: Instant,
    /// Flows so far.
    numbers: u64,
}

impl Engine {
    pub(super) fn new(
        link: Box<dyn Wire>,
        shared: Arc<Shared>,
        tcp: mpsc::Sender<Syn>,
        udp: mpsc::Sender<Datagram>,
    ) -> Self {
        let mut outbox = Outbox::new();
        let mut config = Config::new(HardwareAddress::Ip);
        // Sequence numbers start from it: nothing outside this process may foresee them.
        config.random_seed = RandomState::new().hash_one(0);
        let mut port = Port::new(None, &mut outbox, shared.mtu);
        let mut interface = Interface::new(config, &mut port, Moment::ZERO);
        // Whatever address the filter lets through is ours.
        interface.set_any_ip(true);
        let core = Core {
            shared,
            interface,
            nobody: SocketSet::new(Vec::new()),
            flows: HashMap::new(),
            listed: Vec::new(),
            blocked: Vec::new(),
            timers: BTreeMap::new(),
            tcp,
            udp,
            started: Instant::now(),
            numbers: 0,
        };
        Self { link, outbox, core }
    }

    /// Works until it is stopped or the link ends.
    pub(super) fn run(mut self) {
        if let Err(fault) = self.work() {
            tracing::debug!(%fault, "the network link ended");
            // It is set only here.
            let _ = self.core.shared.fault.set(fault);
        }
        self.core.end();
    }

    fn work(&mut self) -> Result<(), LinkError> {
        while !self.core.shared.is_stopped() {
            let received = self.receive()?;
            let now = Instant::now();
            self.core.collect(now);
            self.core.serve(now, &mut self.outbox);
            self.core.datagrams(&mut self.outbox);
            self.link.send(&mut self.outbox)?;
            let unblocked = self.core.unblock(&self.outbox);
            if !received && !unblocked && self.core.shared.fall_asleep(self.outbox.has_room()) {
                self.wait()?;
                self.core.shared.awake();
            }
        }
        Ok(())
    }

    /// Takes in what the link has, at most one turn of it. Whether there was anything.
    fn receive(&mut self) -> Result<bool, LinkError> {
        let now = Instant::now();
        let Self { link, outbox, core } = self;
        link.receive(&mut |frame| {
            if let Err(why) = frame.and_then(|frame| core.frame(frame, now, outbox)) {
                core.shared.count(why);
                tracing::trace!(%why, "dropped a frame");
            }
        })
    }

    fn wait(&self) -> Result<(), LinkError> {
        let timeout = self.core.timers.first_key_value().map(|((at, _), _)| {
            // Rounded up by as much as poll may round down.
            at.saturating_duration_since(Instant::now()) + TICK
        });
        self.link.wait(!self.outbox.is_empty(), self.core.shared.alarm().as_fd(), timeout)
    }
}

impl Core {
    fn moment(&self, now: Instant) -> Moment {
        let micros = now.saturating_duration_since(self.started).as_micros();
        Moment::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn frame(&mut self, frame: &[u8], now: Instant, out: &mut Outbox) -> Result<(), Dropped> {
        match filter::parse(frame)? {
            Frame::WhoHasGateway => answer::arp(out),
            Frame::SolicitGateway { source } => answer::advertisement(source, out),
            Frame::Ping { gateway, message } => answer::pong(gateway, message, out),
            Frame::Tcp(segment) => return self.segment(&segment, now, out),
            Frame::Udp { source, destination, payload } => {
                let datagram =
                    Datagram::copy(source, destination, payload, &self.shared).ok_or(Dropped::Flood)?;
                self.udp.try_send(datagram).map_err(|_| Dropped::Flood)?;
            }
        }
        Ok(())
    }

    fn segment(&mut self, segment: &Segment<'_>, now: Instant, out: &mut Outbox) -> Result<(), Dropped> {
        let moment = self.moment(now);
        let key = Key { port: segment.source.port(), destination: segment.destination };
        let Some(flow) = self.flows.get(&key).cloned() else {
            match segment.kind {
                Kind::Open { sequence } => self.open(key, segment, sequence)?,
                Kind::Reset => {}
                Kind::Last | Kind::Other => {
                    let mut port = Port::new(Some(segment.packet), out, self.shared.mtu);
                    self.interface.poll_ingress_single(moment, &mut port, &mut self.nobody);
                }
            }
            return Ok(());
        };
        let mut guard = flow.lock();
        let state = &mut *guard;
        match (&mut state.phase, segment.kind) {
            // A guest that has forgotten the old connection, by a reset of its own or a restored snapshot.
            (Phase::Open(_), Kind::Open { sequence }) if sequence != state.sequence => {
                self.forget(&flow, state);
                drop(guard);
                flow.end().wake();
                self.open(key, segment, sequence)?;
            }
            (Phase::Open(connection), kind) => {
                let parts = match kind {
                    _ if connection.guest_is_done() => {
                        last::without_data(segment.packet).map(|bare| [None, Some(bare)])
                    }
                    Kind::Last => last::split(segment.packet).map(|parts| parts.map(Some)),
                    _ => None,
                };
                let parts = parts.as_ref().map(|parts| parts.each_ref().map(Option::as_deref));
                let parts = parts.unwrap_or([Some(segment.packet), None]);
                for packet in parts.into_iter().flatten() {
                    let mut port = Port::new(Some(packet), out, self.shared.mtu);
                    self.interface.poll_ingress_single(moment, &mut port, &mut connection.set);
                }
                list(&mut self.listed, &flow, state);
            }
            // The latest one: the guest may have given up and begun again.
            (Phase::Pending(syn), Kind::Open { sequence }) => {
                *syn = segment.packet.into();
                state.sequence = sequence;
            }
            (Phase::Pending(_), Kind::Reset) => {
                state.phase = Phase::Over;
                self.forget(&flow, state);
            }
            // Not answered yet, or about to be.
            (Phase::Pending(_) | Phase::Refused(_) | Phase::Accepted(..) | Phase::Over, _) => {}
        }
        Ok(())
    }

    /// Hands up a wish to connect.
    fn open(&mut self, key: Key, segment: &Segment<'_>, sequence: i32) -> Result<(), Dropped> {
        let share =
            Share::take(&self.shared, |shared| &shared.pending, 1, PENDING).ok_or(Dropped::Pending)?;
        let of_flows = Share::take(&self.shared, |shared| &shared.flows, 1, FLOWS).ok_or(Dropped::Flows)?;
        self.numbers += 1;
        let flow = Arc::new(Flow::new(segment, sequence, self.numbers, of_flows));
        self.flows.insert(key, flow.clone());
        match self.tcp.try_send(Syn::new(flow, self.shared.clone(), share)) {
            Err(mpsc::error::TrySendError::Full(syn)) => {
                syn.forget();
                self.flows.remove(&key);
                Err(Dropped::Pending)
            }
            // With nobody to take it, dropping it here refuses it.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Lists the flows of which there is news, and those whose time has come.
    fn collect(&mut self, now: Instant) {
        let mut noted = Vec::new();
        self.shared.take_flows(&mut noted);
        for flow in noted {
            // Before it is looked at: what comes after that is news again.
            flow.noted.store(false, Ordering::SeqCst);
            list(&mut self.listed, &flow, &mut flow.lock());
        }
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let flow = entry.remove();
            let mut state = flow.lock();
            state.timer = None;
            list(&mut self.listed, &flow, &mut state);
        }
    }

    /// Serves every flow that is listed.
    fn serve(&mut self, now: Instant, out: &mut Outbox) {
        let mut listed = std::mem::take(&mut self.listed);
        for flow in listed.drain(..) {
            let mut state = flow.lock();
            state.listed = false;
            // It may be over, and another in its place.
            if self.flows.get(&flow.key()).is_some_and(|known| known.number == flow.number) {
                self.turn(&flow, &mut state, now, out);
            }
            let over = matches!(state.phase, Phase::Over);
            let wakers = state.wakers(over);
            drop(state);
            wakers.wake();
        }
        // Its room is used again.
        self.listed = listed;
    }

    /// One flow's turn: does what its task wants, sends what can be sent, and looks when to come back.
    fn turn(&mut self, flow: &Arc<Flow>, state: &mut State, now: Instant, out: &mut Outbox) {
        let moment = self.moment(now);
        match std::mem::replace(&mut state.phase, Phase::Over) {
            Phase::Refused(syn) => {
                let mut port = Port::new(Some(&syn), out, self.shared.mtu);
                self.interface.poll_ingress_single(moment, &mut port, &mut self.nobody);
                return self.forget(flow, state);
            }
            Phase::Accepted(syn, mut connection) => {
                let mut port = Port::new(Some(&syn), out, self.shared.mtu);
                self.interface.poll_ingress_single(moment, &mut port, &mut connection.set);
                state.phase = Phase::Open(connection);
            }
            other => state.phase = other,
        }
        apply(state, now);
        let Phase::Open(connection) = &mut state.phase else { return };
        let mut port = Port::new(None, out, self.shared.mtu);
        while self.interface.poll_egress(moment, &mut port, &mut connection.set)
            == PollResult::SocketStateChanged
        {
            state.unannounced = 0;
        }
        let full = port.full;
        let next = self.interface.poll_at(moment, &connection.set);
        let socket = connection.socket();
        // A TIME-WAIT would be for segments that the network delays. There is none in between.
        let over = match socket.state() {
            tcp::State::Closed => socket.local_endpoint().is_none(),
            tcp::State::TimeWait => !full,
            _ => false,
        };
        if over {
            return self.forget(flow, state);
        }
        if full && !std::mem::replace(&mut state.blocked, true) {
            self.blocked.push(flow.clone());
        }
        let mut at = state.active + IDLE;
        if let Some(released) = state.released {
            at = at.min(released.max(state.active) + LINGER);
        }
        if let Some(next) = next.filter(|_| !full) {
            let micros = u64::try_from(next.total_micros()).unwrap_or(0);
            at = at.min(self.started + Duration::from_micros(micros));
        }
        self.schedule(flow, state, at.max(now + TICK));
    }

    /// Comes back to a flow at that time, if not earlier. It is put off only when the earlier time has come,
    /// so that a flow that is busy does not move in the timers with every segment.
    fn schedule(&mut self, flow: &Arc<Flow>, state: &mut State, at: Instant) {
        if state.timer.is_none_or(|timer| at < timer) {
            if let Some(timer) = state.timer.replace(at) {
                self.timers.remove(&(timer, flow.number));
            }
            self.timers.insert((at, flow.number), flow.clone());
        }
    }

    /// Has nothing to do with a flow any more; what was received can still be read.
    fn forget(&mut self, flow: &Arc<Flow>, state: &mut State) {
        if let Some(timer) = state.timer.take() {
            self.timers.remove(&(timer, flow.number));
        }
        self.flows.remove(&flow.key());
    }

    /// Sends the datagrams that wait, as long as there is room.
    fn datagrams(&mut self, out: &mut Outbox) {
        while out.has_room()
            && let Some((from, port, payload)) = self.shared.next_datagram()
        {
            answer::datagram(from, port, &payload, out);
        }
    }

    /// Lists the flows that waited for room, if there is some. Whether there are any.
    fn unblock(&mut self, out: &Outbox) -> bool {
        if self.blocked.is_empty() || !out.has_room() {
            return false;
        }
        for flow in std::mem::take(&mut self.blocked) {
            let mut state = flow.lock();
            state.blocked = false;
            list(&mut self.listed, &flow, &mut state);
        }
        true
    }

    /// Ends every flow.
    fn end(mut self) {
        self.shared.stop();
        for flow in self.flows.values() {
            flow.end().wake();
        }
        self.shared.take_flows(&mut self.listed);
    }
}

/// Adds a flow to those to be served, once.
fn list(listed: &mut Vec<Arc<Flow>>, flow: &Arc<Flow>, state: &mut State) {
    if !std::mem::replace(&mut state.listed, true) {
        listed.push(flow.clone());
    }
}

/// Does to the connection what its task wants, and what its age demands.
fn apply(state: &mut State, now: Instant) {
    let (shut, mut aborted, released) = (state.shut, state.aborted, state.released);
    let (queued, mut active) = (state.queued, state.active);
    let Some(socket) = state.socket() else { return };
    let queues = (socket.recv_queue(), socket.send_queue());
    if queues != queued {
        active = now;
    }
    if let Some(released) = released {
        // Nobody reads it any more. Once everything of ours has arrived, the guest is told so.
        while socket.can_recv() && socket.recv(|data| (data.len(), ())).is_ok() {
            aborted |= socket.state() == tcp::State::FinWait2;
        }
        aborted |= now >= released.max(active) + LINGER;
    }
    aborted |= now >= active + IDLE;
    let close = shut
        && match socket.state() {
            tcp::State::Established => true,
            // Not before everything has arrived: once smoltcp waits for the last acknowledgement, it takes
            // no notice of the guest's window.
            tcp::State::CloseWait => queues.1 == 0,
            _ => false,
        };
    // It listens again when the guest broke off its handshake.
    if aborted || socket.state() == tcp::State::Listen {
        socket.abort();
    } else if close {
        socket.close();
    }
    (state.queued, state.active) = (queues, active);
}
