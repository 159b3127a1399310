//! The connection of a client: who waits for which answer, and the task that reads them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::rpc::{Failure, Id};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::AbortHandle;

use super::ClientError;
use crate::line::Lines;
use crate::message;
use crate::outgoing::{Outgoing, Writing};

/// Pieces of output that wait for whoever reads them.
const WAITING: usize = 4;

/// A connection. Clones are the same one, which ends with the last of them.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    outgoing: Outgoing,
    waiting: Arc<Waiting>,
    next_id: Arc<AtomicI64>,
    _tasks: Arc<Tasks>,
}

#[derive(Debug)]
struct Tasks {
    reading: AbortHandle,
    _writing: Writing,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Waiting(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    by_id: HashMap<i64, Waiter>,
    /// Why the connection has ended.
    end: Option<End>,
}

#[derive(Debug, Clone)]
enum End {
    Gone,
    Malformed,
    /// The owner refused the connection.
    Refused(Failure),
}

impl From<End> for ClientError {
    fn from(end: End) -> Self {
        match end {
            End::Gone => Self::Gone,
            End::Malformed => Self::Malformed,
            End::Refused(failure) => Self::Remote(failure),
        }
    }
}

#[derive(Debug)]
enum Waiter {
    /// For an answer.
    Answer(oneshot::Sender<Result<String, Failure>>),
    /// For notifications, then an answer.
    Notes(mpsc::Sender<Note>),
    /// For nothing; another piece of input may be sent when this one is taken.
    Input { _place: OwnedSemaphorePermit },
}

/// What comes for a request that streams.
#[derive(Debug)]
pub(super) enum Note {
    /// A notification: the last part of its method's name, and its data.
    Data(Part, Vec<u8>),
    /// The answer.
    Answer(Result<String, Failure>),
}

/// Which notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Ready,
    Stdout,
    Stderr,
    Log,
}

impl Part {
    fn of(method: &str) -> Option<Self> {
        match method.rsplit_once('.')?.1 {
            "ready" => Some(Self::Ready),
            "stdout" => Some(Self::Stdout),
            "stderr" => Some(Self::Stderr),
            "data" => Some(Self::Log),
            _ => None,
        }
    }
}

impl Connection {
    pub(super) fn new(
        reader: impl AsyncRead + Unpin + Send + 'static,
        writer: impl AsyncWrite + Unpin + Send + 'static,
    ) -> Self {
        let (outgoing, writing) = Outgoing::start(writer);
        let waiting = Arc::new(Waiting::default());
        let state = Arc::clone(&waiting);
        let reading = tokio::spawn(async move {
            let end = state.read(Lines::new(reader)).await;
            state.end(end);
        });
        let tasks = Tasks { reading: reading.abort_handle(), _writing: writing };
        Self { outgoing, waiting, next_id: Arc::new(AtomicI64::new(1)), _tasks: Arc::new(tasks) }
    }

    pub(super) async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl Serialize,
    ) -> Result<R, ClientError> {
        let (sender, answer) = oneshot::channel();
        let id = self.wait(Waiter::Answer(sender))?;
        self.send(message::call(Some(&id), method, params)).await?;
        let answer = answer.await.map_err(|_| self.end())??;
        from_json(&answer)
    }

    /// Begins a request that streams.
    pub(super) async fn stream(
        &self,
        method: &str,
        params: &impl Serialize,
    ) -> Result<(Id, mpsc::Receiver<Note>), ClientError> {
        let (sender, notes) = mpsc::channel(WAITING);
        let id = self.wait(Waiter::Notes(sender))?;
        self.send(message::call(Some(&id), method, params)).await?;
        Ok((id, notes))
    }

    /// A new identifier, for a piece of input whose answer gives `place` back.
    pub(super) fn input(&self, place: OwnedSemaphorePermit) -> Result<Id, ClientError> {
        self.wait(Waiter::Input { _place: place })
    }

    pub(super) async fn send(&self, line: Vec<u8>) -> Result<(), ClientError> {
        self.outgoing.send(line).await.map_err(|_| self.end())
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> ClientError {
        // An answer that nobody will give.
        let (sender, end) = oneshot::channel();
        if let Err(error) = self.wait(Waiter::Answer(sender)) {
            return error;
        }
        let _ = end.await;
        self.end()
    }

    /// Why it has ended.
    pub(super) fn end(&self) -> ClientError {
        self.waiting.state().end.clone().unwrap_or(End::Gone).into()
    }

    fn wait(&self, waiter: Waiter) -> Result<Id, ClientError> {
        let mut state = self.waiting.state();
        if let Some(end) = &state.end {
            return Err(end.clone().into());
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        state.by_id.insert(id, waiter);
        Ok(Id::Number(id))
    }
}

/// The value that an answer is.
pub(super) fn from_json<R: DeserializeOwned>(json: &str) -> Result<R, ClientError> {
    serde_json::from_str(json).map_err(|error| {
        tracing::debug!(%error, "unexpected answer");
        ClientError::Malformed
    })
}

/// Any line: read in one pass, because most are output.
#[derive(Deserialize)]
struct Line<'a> {
    id: Option<Id>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<Params<'a>>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Params<'a> {
    id: Option<Id>,
    #[serde(borrow)]
    data: Option<Cow<'a, str>>,
}

impl Waiting {
    /// Reads to the end, and says why it is that.
    async fn read(&self, mut lines: Lines<impl AsyncRead + Unpin>) -> End {
        loop {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return End::Gone,
                Err(error) => {
                    tracing::debug!(%error, "cannot read on");
                    return End::Gone;
                }
            };
            let line: Line<'_> = match serde_json::from_slice(line) {
                Ok(line) => line,
                Err(error) => {
                    tracing::debug!(%error, "malformed line");
                    return End::Malformed;
                }
            };
            if let Err(end) = self.take(line).await {
                return end;
            }
        }
    }

    async fn take(&self, line: Line<'_>) -> Result<(), End> {
        if let (Some(method), Some(params)) = (line.method, line.params) {
            return self.notify(&method, params).await;
        }
        let answer = match (line.error, line.result) {
            (Some(failure), _) => Err(failure),
            (None, Some(result)) => Ok(result.get().to_owned()),
            (None, None) => return Err(End::Malformed),
        };
        match (line.id, answer) {
            (Some(id), answer) => {
                let waiter = number(&id).and_then(|id| self.state().by_id.remove(&id));
                match waiter {
                    Some(Waiter::Answer(sender)) => drop(sender.send(answer)),
                    Some(Waiter::Notes(sender)) => drop(sender.send(Note::Answer(answer)).await),
                    Some(Waiter::Input { .. }) | None => {}
                }
                Ok(())
            }
            (None, Err(failure)) => Err(End::Refused(failure)),
            (None, Ok(_)) => Err(End::Malformed),
        }
    }

    async fn notify(&self, method: &str, params: Params<'_>) -> Result<(), End> {
        let Some((part, id)) = Part::of(method).zip(params.id.as_ref().and_then(number)) else {
            return Ok(());
        };
        let notes = match self.state().by_id.get(&id) {
            Some(Waiter::Notes(notes)) => notes.clone(),
            _ => return Ok(()),
        };
        let data = params.data.map_or_else(|| Ok(Vec::new()), |data| BASE64.decode(data.as_bytes()));
        let data = data.map_err(|_| End::Malformed)?;
        // Who does not listen any more misses nothing.
        let _ = notes.send(Note::Data(part, data)).await;
        Ok(())
    }

    fn end(&self, end: End) {
        let mut state = self.state();
        state.end = Some(end);
        // Who waits hears of it.
        state.by_id.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(id: &Id) -> Option<i64> {
    match id {
        Id::Number(number) => Some(*number),
        Id::Text(_) => None,
    }
}
