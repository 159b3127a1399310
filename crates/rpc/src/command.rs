//! A command that a request has started: its output goes to the client, the client's messages to
//! it, and it is ended if the request is cancelled.

use std::future::{Future, pending, poll_fn};
use std::task::Poll;
use std::time::Duration;

use api::Kind;
use api::rpc::{Code, Failure};
use sandbox::agent::{AgentError, Control, Ended, Event, Output, Running, Source, StartError};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::input::Inbox;
use crate::outgoing::Outgoing;
use crate::requests::Cancel;

/// Output of one source that is passed on together, bytes.
pub(crate) const MAX_BATCH: usize = 128 * 1024;

/// Between SIGTERM and SIGKILL for a cancelled command.
const GRACE: Duration = Duration::from_secs(5);

/// How long it may take to be gone after that.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Takes a command's output.
pub(crate) trait Sink: Send {
    /// Takes these bytes; an error ends the command.
    fn take(&mut self, source: Source, bytes: &[u8]) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Why nobody stayed with a command to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The sandbox broke off; the host knows why.
    Agent(AgentError),
    /// The answer to the request.
    Failed(Failure),
}

/// Stays with a command to its end and gives its exit code. Dropping this ends the command.
pub(crate) async fn attend(
    running: Running,
    inbox: &mut Inbox,
    sink: &mut impl Sink,
    cancel: &Cancel,
    outgoing: &Outgoing,
) -> Result<u8, Stop> {
    let Running { output, input, control } = running;
    let feed = async {
        inbox.feed(input, &control, outgoing).await;
        pending().await
    };
    let ended = tokio::select! {
        ended = pump(output, sink, cancel) => ended,
        () = end_if_cancelled(&control, cancel) => Err(Stop::Failed(Failure::cancelled())),
        never = feed => never,
    };
    if cancel.is_cancelled() {
        return Err(Stop::Failed(Failure::cancelled()));
    }
    exit_code(&ended?).map_err(Stop::Failed)
}

/// Ends the command after the request was cancelled, with all its processes. If a guest does not do
/// that, this returns, and dropping its [`Running`] ends what can be ended.
async fn end_if_cancelled(control: &Control, cancel: &Cancel) {
    cancel.cancelled().await;
    let deadline = Instant::now() + GRACE + LAST_WAIT;
    if let Ok(Err(error)) = timeout_at(deadline, control.terminate(GRACE)).await {
        tracing::debug!(%error, "cannot reach a cancelled command");
    }
    sleep_until(deadline).await;
}

/// Moves output to the sink until the command has ended. Records that are there at once go together.
async fn pump(output: Output, sink: &mut impl Sink, cancel: &Cancel) -> Result<Ended, Stop> {
    let mut batch = Batch { source: Source::Stdout, bytes: Vec::new() };
    let next = read(output, Vec::new());
    tokio::pin!(next);
    loop {
        // A guest that always has something must not keep us from hearing that it was cancelled.
        tokio::task::coop::consume_budget().await;
        let arrived = if batch.bytes.is_empty() {
            Some(next.as_mut().await)
        } else {
            poll_fn(|context| Poll::Ready(ready(next.as_mut().poll(context)))).await
        };
        let Some((output, record, event)) = arrived else {
            batch.flush(sink, cancel).await?;
            continue;
        };
        match event.map_err(Stop::Agent)? {
            Event::Wrote(source) => {
                if source != batch.source || batch.bytes.len() + record.len() > MAX_BATCH {
                    batch.flush(sink, cancel).await?;
                }
                batch.source = source;
                batch.bytes.extend_from_slice(&record);
                next.set(read(output, record));
            }
            Event::Ended(ended) => {
                batch.flush(sink, cancel).await?;
                return Ok(ended);
            }
        }
    }
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Reads a record. Owns what it needs, so that it can be left waiting while a batch is passed on.
async fn read(mut output: Output, mut record: Vec<u8>) -> (Output, Vec<u8>, Result<Event, AgentError>) {
    let event = output.next(&mut record).await;
    (output, record, event)
}

struct Batch {
    source: Source,
    bytes: Vec<u8>,
}

impl Batch {
    /// Passes it on. What a cancelled command still writes is read, so that it can end, and dropped.
    async fn flush(&mut self, sink: &mut impl Sink, cancel: &Cancel) -> Result<(), Stop> {
        if !self.bytes.is_empty() {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                taken = sink.take(self.source, &self.bytes) => taken.map_err(Stop::Failed)?,
            }
        }
        self.bytes.clear();
        Ok(())
    }
}

/// The exit code that stands for how a command ended; a failure if it never ran.
fn exit_code(ended: &Ended) -> Result<u8, Failure> {
    let Ended::NotStarted(error) = ended else { return Ok(ended.exit_code()) };
    let (kind, hint) = match error {
        StartError::NotFound { .. } => (Kind::NotFound, Some("check its name, and the PATH of the sandbox")),
        StartError::NotExecutable { .. } | StartError::UnknownUser { .. } | StartError::WorkingDir { .. } => {
            (Kind::InvalidInput, None)
        }
        StartError::Internal(_) => (Kind::Internal, None),
    };
    let failure = Failure::new(Code::EXEC, kind, error.to_string());
    Err(Failure { exit_code: Some(ended.exit_code()), hint: hint.map(str::to_owned), ..failure })
}
