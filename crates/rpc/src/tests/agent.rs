//! An agent for tests: the guest's end of a channel, which runs real processes of this machine.

use std::collections::HashMap;
use std::process::Stdio as Pipe;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use proto::agent::{
    Answer, Ended, Exec, RECORD_HEADER_LEN, RecordHeader, RecordKind, Request, StartError, Stdio, WindowSize,
};
use proto::frame::{HEADER_LEN, Header, StreamId};
use proto::message;
use proto::mux::{Event, Mux, Side};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::process::{ChildStdin, Command};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use vmm::channel::Channel;

/// Output read at a time, as the real agent does.
const CHUNK: usize = 32 * 1024 - 64;

/// Between SIGTERM and SIGKILL for a command whose stream was reset.
const GRACE: Duration = Duration::from_millis(300);

pub(crate) struct Guest {
    state: Mutex<State>,
    changed: Notify,
    out: mpsc::UnboundedSender<Vec<u8>>,
    reading: OnceLock<AbortHandle>,
    writing: AbortHandle,
}

struct State {
    mux: Mux,
    streams: HashMap<StreamId, Arrived>,
    groups: HashMap<u64, Pid>,
    /// What was asked of commands beside their input, in order.
    resizes: Vec<WindowSize>,
}

#[derive(Default)]
struct Arrived {
    bytes: Vec<u8>,
    finished: bool,
}

/// The stream is gone.
struct Reset;

/// A channel to a new agent.
pub(crate) fn start() -> (Channel, Arc<Guest>) {
    let (host, guest) = UnixStream::pair().unwrap();
    let (reader, mut writer) = guest.into_split();
    let (out, mut lines) = mpsc::unbounded_channel::<Vec<u8>>();
    let mux = Mux::new(Side::Guest);
    let state = State { mux, streams: HashMap::new(), groups: HashMap::new(), resizes: Vec::new() };
    let writing = tokio::spawn(async move {
        while let Some(bytes) = lines.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let guest = Arc::new(Guest {
        state: Mutex::new(state),
        changed: Notify::new(),
        out,
        reading: OnceLock::new(),
        writing: writing.abort_handle(),
    });
    let reading = tokio::spawn(Arc::clone(&guest).read(reader));
    guest.reading.set(reading.abort_handle()).unwrap();
    (Channel::new(host, &[]), guest)
}

impl Guest {
    /// Ends the channel and every command, as when a VM dies.
    pub(crate) fn die(&self) {
        self.reading.get().unwrap().abort();
        self.writing.abort();
        self.state.lock().unwrap().streams.clear();
        self.changed.notify_waiters();
    }

    /// Process groups of the commands that run.
    pub(crate) fn running(&self) -> usize {
        self.state.lock().unwrap().groups.len()
    }

    pub(crate) fn resizes(&self) -> Vec<WindowSize> {
        self.state.lock().unwrap().resizes.clone()
    }

    async fn read(self: Arc<Self>, mut reader: OwnedReadHalf) -> Option<()> {
        loop {
            let mut header = [0; HEADER_LEN];
            reader.read_exact(&mut header).await.ok()?;
            let header = Header::decode(&header).unwrap();
            let mut payload = vec![0; header.payload_len()];
            reader.read_exact(&mut payload).await.ok()?;
            let mut state = self.state.lock().unwrap();
            match state.mux.receive(header).unwrap() {
                Event::Opened { stream, .. } => {
                    state.streams.insert(stream, Arrived::default());
                    tokio::spawn(Arc::clone(&self).serve(stream));
                }
                Event::Data { stream, .. } => {
                    if let Some(arrived) = state.streams.get_mut(&stream) {
                        arrived.bytes.extend(payload);
                    }
                }
                Event::Finished { stream } => {
                    if let Some(arrived) = state.streams.get_mut(&stream) {
                        arrived.finished = true;
                    }
                }
                Event::Reset { stream, .. } => drop(state.streams.remove(&stream)),
                Event::Writable { .. } | Event::Overload { .. } | Event::Stale { .. } => {}
            }
            self.changed.notify_waiters();
        }
    }

    /// Waits until `check` gives something.
    async fn until<T>(&self, mut check: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(value) = check(&mut self.state.lock().unwrap()) {
                return value;
            }
            changed.await;
        }
    }

    async fn read_exact(&self, stream: StreamId, length: usize) -> Result<Vec<u8>, Reset> {
        let mut all = Vec::new();
        while all.len() < length {
            let part = self.until(|state| {
                let Some(arrived) = state.streams.get_mut(&stream) else { return Some(None) };
                if arrived.bytes.is_empty() {
                    return arrived.finished.then_some(None);
                }
                let part: Vec<u8> =
                    arrived.bytes.drain(..arrived.bytes.len().min(length - all.len())).collect();
                if let Some(credit) = state.mux.taken(stream, part.len()) {
                    self.out.send(credit.encode().to_vec()).ok();
                }
                Some(Some(part))
            });
            all.extend(part.await.ok_or(Reset)?);
        }
        Ok(all)
    }

    async fn write(&self, stream: StreamId, mut bytes: &[u8]) -> Result<(), Reset> {
        while !bytes.is_empty() {
            let sent = self.until(|state| match state.mux.send(stream, bytes.len()) {
                Err(_) => Some(Err(Reset)),
                Ok(None) => None,
                Ok(Some(header)) => {
                    let sent = header.payload_len();
                    self.out.send([&header.encode()[..], &bytes[..sent]].concat()).ok();
                    Some(Ok(sent))
                }
            });
            bytes = &bytes[sent.await?..];
        }
        Ok(())
    }

    async fn record(&self, stream: StreamId, kind: RecordKind, payload: &[u8]) -> Result<(), Reset> {
        let header = RecordHeader { kind, length: payload.len() as u32 };
        self.write(stream, &[&header.encode()[..], payload].concat()).await
    }

    async fn serve(self: Arc<Self>, stream: StreamId) {
        let _ = self.try_serve(stream).await;
        let mut state = self.state.lock().unwrap();
        let last = state.mux.finish(stream);
        state.streams.remove(&stream);
        last.map(|last| self.out.send(last.encode().to_vec()));
    }

    async fn try_serve(self: &Arc<Self>, stream: StreamId) -> Result<(), Reset> {
        let prefix = self.read_exact(stream, message::PREFIX_LEN).await?;
        let length = message::length(prefix.try_into().unwrap()).unwrap();
        let request = message::decode(&self.read_exact(stream, length).await?).unwrap();
        match request {
            Request::Exec(exec) => return self.exec(stream, exec).await,
            Request::Signal { id, signal } => {
                let group = self.state.lock().unwrap().groups.get(&id).copied();
                if let (Some(group), Some(signal)) = (group, Signal::from_named_raw(signal)) {
                    kill_process_group(group, signal).ok();
                }
            }
            Request::Terminate { id, grace_ms } => {
                if let Some(group) = self.state.lock().unwrap().groups.get(&id).copied() {
                    kill_process_group(group, Signal::TERM).ok();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(grace_ms)).await;
                        kill_process_group(group, Signal::KILL).ok();
                    });
                }
            }
            Request::Resize { size, .. } => self.state.lock().unwrap().resizes.push(size),
        }
        self.write(stream, &message::encode(&Answer::Done).unwrap()).await
    }

    async fn exec(self: &Arc<Self>, stream: StreamId, exec: Exec) -> Result<(), Reset> {
        let words: Vec<String> =
            exec.argv.iter().map(|word| String::from_utf8(word.clone()).unwrap()).collect();
        let variables = exec.env.iter().map(|(name, value)| {
            (String::from_utf8(name.clone()).unwrap(), String::from_utf8(value.clone()).unwrap())
        });
        let input = !matches!(exec.stdio, Stdio::Pipes { stdin: false });
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(variables).process_group(0).kill_on_drop(true);
        command.stdin(if input { Pipe::piped() } else { Pipe::null() });
        let child = command.stdout(Pipe::piped()).stderr(Pipe::piped()).spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                let error =
                    StartError::NotFound { program: words[0].clone(), reason: error.kind().to_string() };
                return self.ended(stream, Ended::NotStarted(error)).await;
            }
        };
        let group = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
        self.state.lock().unwrap().groups.insert(exec.id, group);
        let feeder = child.stdin.take().map(|stdin| tokio::spawn(Arc::clone(self).feed(stream, stdin)));
        let ending = tokio::spawn(Arc::clone(self).end_on_reset(stream, group));
        let outputs = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let _ = tokio::join!(
            self.relay(stream, RecordKind::Stdout, outputs.0),
            self.relay(stream, RecordKind::Stderr, outputs.1),
        );
        let status = child.wait().await.unwrap();
        ending.abort();
        self.state.lock().unwrap().groups.remove(&exec.id);
        if let Some(feeder) = feeder {
            feeder.abort();
        }
        let ended = match status.code() {
            Some(code) => Ended::Exited(code as u8),
            None => Ended::Signalled(std::os::unix::process::ExitStatusExt::signal(&status).unwrap()),
        };
        self.ended(stream, ended).await
    }

    async fn ended(&self, stream: StreamId, ended: Ended) -> Result<(), Reset> {
        // As the encoding of a message, without its prefix.
        let report = message::encode(&ended).unwrap().split_off(message::PREFIX_LEN);
        self.record(stream, RecordKind::Ended, &report).await
    }

    async fn relay(
        &self,
        stream: StreamId,
        kind: RecordKind,
        mut output: impl AsyncRead + Unpin,
    ) -> Result<(), Reset> {
        let mut buffer = vec![0; CHUNK];
        loop {
            match output.read(&mut buffer).await {
                Ok(length) if length > 0 => self.record(stream, kind, &buffer[..length]).await?,
                _ => return Ok(()),
            }
        }
    }

    async fn feed(self: Arc<Self>, stream: StreamId, stdin: ChildStdin) {
        let mut stdin = Some(stdin);
        while let Ok(header) = self.read_exact(stream, RECORD_HEADER_LEN).await {
            let header = RecordHeader::decode(header.try_into().unwrap()).unwrap();
            if header.length == 0 {
                stdin = None;
                continue;
            }
            let Ok(data) = self.read_exact(stream, header.length as usize).await else { return };
            if let Some(open) = &mut stdin
                && open.write_all(&data).await.is_err()
            {
                stdin = None;
            }
        }
    }

    async fn end_on_reset(self: Arc<Self>, stream: StreamId, group: Pid) {
        self.until(|state| (!state.streams.contains_key(&stream)).then_some(())).await;
        kill_process_group(group, Signal::TERM).ok();
        tokio::time::sleep(GRACE).await;
        kill_process_group(group, Signal::KILL).ok();
    }
}
