//! A command at the other end: its events, its input, and control over it.

use std::sync::Arc;

use api::rpc::{CancelResult, ExecParams, ExitResult, Id, ResizeParams, SignalParams, Target};
use tokio::sync::{Semaphore, mpsc};

use super::ClientError;
use super::connection::{Connection, Note, Part, from_json};
use crate::message::{self, DataLines};

/// Bytes of input in one message.
const CHUNK: usize = 64 * 1024;

/// Messages of input that the command has not taken yet. More would only fill the owner's memory.
const WINDOW: usize = 8;

/// How a command is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Output only: `exec_stream`. There is no [`Event::Ready`], no input, and there are no signals.
    Stream,
    /// Pipes: `exec_pipe`.
    Pipe,
    /// A terminal: `exec_tty`.
    Tty,
}

impl Mode {
    fn method(self) -> &'static str {
        match self {
            Self::Stream => "exec_stream",
            Self::Pipe => "exec_pipe",
            Self::Tty => "exec_tty",
        }
    }
}

/// A command that was asked for. It ends with the connection: when its [`super::Client`] is dropped,
/// and all of this.
#[derive(Debug)]
pub struct Command {
    /// What it writes, and how it ends.
    pub events: Events,
    /// What it reads.
    pub input: Input,
    /// Signals, window sizes, cancelling.
    pub control: Control,
}

/// One thing that happens to a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It takes input.
    Ready,
    /// It wrote this to standard output or its terminal.
    Stdout(Vec<u8>),
    /// It wrote this to standard error.
    Stderr(Vec<u8>),
    /// It ended; nothing follows.
    Ended(ExitResult),
}

/// The events of a command.
#[derive(Debug)]
pub struct Events {
    notes: mpsc::Receiver<Note>,
    connection: Connection,
}

/// The input of a command.
#[derive(Debug)]
pub struct Input {
    control: Control,
    window: Arc<Semaphore>,
}

/// Control over a command beside its input.
#[derive(Debug, Clone)]
pub struct Control {
    connection: Connection,
    id: Id,
    method: &'static str,
}

pub(super) async fn start(
    connection: &Connection,
    params: &ExecParams,
    mode: Mode,
) -> Result<Command, ClientError> {
    let method = mode.method();
    let (id, notes) = connection.stream(method, params).await?;
    let control = Control { connection: connection.clone(), id, method };
    Ok(Command {
        events: Events { notes, connection: connection.clone() },
        input: Input { control: control.clone(), window: Arc::new(Semaphore::new(WINDOW)) },
        control,
    })
}

impl Events {
    /// Waits for the next event. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::Remote`] if the command could not be started, was cancelled, or the sandbox
    /// has ended; [`ClientError::Gone`]. Nothing follows.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            return match self.notes.recv().await {
                Some(Note::Data(Part::Ready, _)) => Ok(Event::Ready),
                Some(Note::Data(Part::Stdout, data)) => Ok(Event::Stdout(data)),
                Some(Note::Data(Part::Stderr, data)) => Ok(Event::Stderr(data)),
                Some(Note::Data(Part::Log, _)) => continue,
                Some(Note::Answer(answer)) => from_json(&answer?).map(Event::Ended),
                None => Err(self.connection.end()),
            };
        }
    }
}

impl Input {
    /// Sends bytes; waits while the command does not take what was sent.
    ///
    /// # Errors
    /// When the owner is gone. That the command has ended is not an error: its events say so.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let Control { connection, id: of, method } = &self.control;
        for chunk in bytes.chunks(CHUNK) {
            let id = self.place(connection).await?;
            let line = DataLines::new(Some(&id), &format!("{method}.stdin"), of).line(chunk);
            connection.send(line).await?;
        }
        Ok(())
    }

    /// Says that no more input comes.
    ///
    /// # Errors
    /// When the owner is gone.
    pub async fn finish(&mut self) -> Result<(), ClientError> {
        let Control { connection, id: of, method } = &self.control;
        let id = self.place(connection).await?;
        let line = message::call(Some(&id), &format!("{method}.stdin_eof"), &Target { id: of.clone() });
        connection.send(line).await
    }

    /// An identifier for the next message, when there is place for it.
    async fn place(&self, connection: &Connection) -> Result<Id, ClientError> {
        let place = Arc::clone(&self.window).acquire_owned().await.expect("nobody closes it");
        connection.input(place)
    }
}

impl Control {
    /// Sends a signal to the command's process group; if it has ended, to nobody.
    ///
    /// # Errors
    /// When the owner is gone.
    pub async fn signal(&self, signal: i32) -> Result<(), ClientError> {
        self.notify("signal", &SignalParams { id: self.id.clone(), signal }).await
    }

    /// Sets the size of the command's terminal.
    ///
    /// # Errors
    /// When the owner is gone.
    pub async fn resize(&self, rows: u16, cols: u16) -> Result<(), ClientError> {
        self.notify("resize", &ResizeParams { id: self.id.clone(), rows, cols }).await
    }

    /// Ends the command: SIGTERM, then SIGKILL. Gives whether it was running; its events end with a
    /// failure of [`api::rpc::Code::CANCELLED`].
    ///
    /// # Errors
    /// When the owner is gone.
    pub async fn cancel(&self) -> Result<bool, ClientError> {
        let target = Target { id: self.id.clone() };
        let CancelResult { cancelled } = self.connection.call("cancel", &target).await?;
        Ok(cancelled)
    }

    async fn notify(&self, verb: &str, params: &impl serde::Serialize) -> Result<(), ClientError> {
        self.connection.send(message::call(None, &format!("{}.{verb}", self.method), params)).await
    }
}
