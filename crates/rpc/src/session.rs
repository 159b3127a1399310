//! One client's session: takes its lines, starts what they ask for, and ends it all when the client
//! is gone.
//!
//! Requests run as tasks of their own. Whatever the session has to wait for before it can take the
//! next line (room for input, a slow reader of its answers, an exclusive method), it sees the end
//! of the client meanwhile.

use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use api::rpc::{Code, Failure, Id};
use sandbox::publish::Publisher;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::host::Host;
use crate::input::{self, InputSender, Item};
use crate::line::{LineError, Lines};
use crate::message::{self, Incoming};
use crate::method::{Answer, Call, Turn, cancel};
use crate::outgoing::Outgoing;
use crate::requests::{Begun, Requests};
use crate::service::Service;

/// How long requests may take to end by themselves once the service has been told to stop.
const STOPPING: Duration = Duration::from_secs(2);

/// How long the last lines may take to leave.
const LEAVING: Duration = Duration::from_secs(1);

/// Characters of an unknown method's name that are repeated.
const NAME: usize = 64;

/// Serves one client to its end, or until `shutdown`. Dropping this ends all that the client
/// started.
pub async fn run<H: Host>(
    service: Service<H>,
    reader: impl AsyncRead + Unpin + Send,
    writer: impl AsyncWrite + Unpin + Send + 'static,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (outgoing, writing) = Outgoing::start(writer);
    let mut session = Session::new(service, outgoing);
    match session.serve(Lines::new(reader), shutdown).await {
        End::Client => {}
        End::Refused(failure) => {
            let _ = timeout(LEAVING, session.outgoing.send(message::response(None, &Err(failure)))).await;
        }
        End::Shutdown => {
            let all = async { while session.tasks.join_next().await.is_some() {} };
            let _ = timeout(STOPPING, all).await;
        }
    }
    session.tasks.shutdown().await;
    drop(session);
    writing.finish(LEAVING).await;
}

/// Why a session ends.
enum End {
    /// The client is gone.
    Client,
    /// What it sent cannot be read on.
    Refused(Failure),
    /// The service stops.
    Shutdown,
}

struct Session<H: Host> {
    service: Service<H>,
    outgoing: Outgoing,
    requests: Arc<Requests>,
    tasks: JoinSet<()>,
    /// For input that waits.
    room: Arc<Semaphore>,
    published: Arc<Mutex<Option<Publisher>>>,
}

/// What is to be done for a line before the next can be taken.
enum Step {
    Nothing,
    Answer(Vec<u8>),
    Input {
        to: Option<InputSender>,
        message: input::Message,
        receipt: Option<Id>,
    },
    /// An exclusive method runs.
    Wait(oneshot::Receiver<()>),
}

impl<H: Host> Session<H> {
    fn new(service: Service<H>, outgoing: Outgoing) -> Self {
        Self {
            service,
            outgoing,
            requests: Requests::new(),
            tasks: JoinSet::new(),
            room: Arc::new(Semaphore::new(input::ROOM)),
            published: Arc::new(Mutex::new(None)),
        }
    }

    async fn serve(
        &mut self,
        mut lines: Lines<impl AsyncRead + Unpin>,
        shutdown: impl Future<Output = ()>,
    ) -> End {
        tokio::pin!(shutdown);
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                () = self.outgoing.closed() => return End::Client,
                () = &mut shutdown => return End::Shutdown,
            };
            let step = match line {
                Ok(Some(line)) => self.take(line),
                Ok(None) => return End::Client,
                Err(LineError::Io(error)) => {
                    tracing::debug!(%error, "a client is gone");
                    return End::Client;
                }
                Err(error @ LineError::TooLong(_)) => {
                    let (code, kind) = (Code::INVALID_REQUEST, Kind::LimitExceeded);
                    return End::Refused(Failure::new(code, kind, error.to_string()));
                }
            };
            // What has ended needs no place any more.
            while self.tasks.try_join_next().is_some() {}
            tokio::select! {
                () = self.perform(step) => {}
                () = lines.ended() => return End::Client,
                () = self.outgoing.closed() => return End::Client,
                () = &mut shutdown => return End::Shutdown,
            }
        }
    }

    /// Takes a line; never waits.
    fn take(&mut self, line: &[u8]) -> Step {
        let incoming = match message::parse(line) {
            Ok(None) => return Step::Nothing,
            Ok(Some(incoming)) => incoming,
            Err(refusal) => {
                return Step::Answer(message::response(refusal.id.as_ref(), &Err(refusal.failure)));
            }
        };
        let id = incoming.id.clone();
        self.dispatch(incoming).unwrap_or_else(|failure| answer(id.as_ref(), &Err(failure)))
    }

    fn dispatch(&mut self, incoming: Incoming<'_>) -> Result<Step, Failure> {
        let Incoming { id, method, params } = incoming;
        if let Some(id) = id.as_ref().filter(|id| self.requests.input(id).is_some()) {
            return Err(Requests::conflict(id));
        }
        if let Some(message) = input::parse(&method, params) {
            let (of, message) = message?;
            return Ok(Step::Input { to: self.requests.input(&of), message, receipt: id });
        }
        if method == "cancel" {
            return Ok(answer(id.as_ref(), &cancel::run(params, &self.requests)));
        }
        let unknown = || {
            let name: String = method.chars().take(NAME).collect();
            let message = format!("there is no method {name:?}");
            Failure::new(Code::UNKNOWN_METHOD, Kind::InvalidInput, message)
        };
        let service = self.service.clone();
        let found = service.methods.find(&method).ok_or_else(unknown)?;
        let Some(id) = id else {
            tracing::warn!(%method, "ignored a notification: this method wants an id");
            return Ok(Step::Nothing);
        };
        let Begun { cancel, inbox, registered, slot } = self.requests.begin(&id)?;
        let outgoing = self.outgoing.clone();
        let collected = service.collected.begin();
        let done = (found.handler)(Call {
            id: id.clone(),
            method: method.into_owned(),
            params: params.to_owned(),
            host: service.host,
            outgoing: outgoing.clone(),
            cancel,
            inbox,
            collected: collected.clone(),
            published: Arc::clone(&self.published),
        });
        let (finished, wait) = oneshot::channel();
        self.tasks.spawn(async move {
            let answer = done.await;
            drop(registered);
            // Without a client there is nobody to tell.
            let _ = outgoing.send(message::response(Some(&id), &answer)).await;
            drop((slot, collected));
            let _ = finished.send(());
        });
        Ok(match found.turn {
            Turn::Concurrent => Step::Nothing,
            Turn::Exclusive => Step::Wait(wait),
        })
    }

    async fn perform(&self, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Answer(line) => {
                // The session sees for itself that the client is gone.
                let _ = self.outgoing.send(line).await;
            }
            Step::Wait(finished) => {
                let _ = finished.await;
            }
            Step::Input { to, message, receipt } => self.pass_on(to, message, receipt).await,
        }
    }

    /// Passes a message on to a command. One for a command that has ended is taken, too: its sender
    /// could not know.
    async fn pass_on(&self, to: Option<InputSender>, message: input::Message, receipt: Option<Id>) {
        let refused = match to {
            None => receipt,
            Some(to) => {
                let room = Arc::clone(&self.room).acquire_many_owned(message.size()).await;
                let room = room.expect("nobody closes it");
                to.send(Item { message, receipt, _room: room }).err().and_then(|item| item.receipt)
            }
        };
        if let Some(id) = refused {
            input::acknowledge(&id, &self.outgoing).await;
        }
    }
}

/// The answer to a request; a notification gets none.
fn answer(id: Option<&Id>, answer: &Answer) -> Step {
    match (id, answer) {
        (Some(_), answer) => Step::Answer(message::response(id, answer)),
        (None, Err(failure)) => {
            // Its message may repeat what the client sent, and that is for nobody's log.
            tracing::warn!(code = failure.code.0, kind = ?failure.kind, "a notification failed");
            Step::Nothing
        }
        (None, Ok(_)) => Step::Nothing,
    }
}
