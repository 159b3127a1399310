//! The client of the guest's agent: starts commands and moves their input and output.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{Explain, Kind};
use proto::Port;
use proto::agent::{
    Answer, Exec, MAX_RECORD, RECORD_HEADER_LEN, RecordError, RecordHeader, RecordKind, Request,
};
pub use proto::agent::{Ended, StartError, Stdio, WindowSize};
use proto::forward::{self, Connect};
use proto::message::{self, MessageError};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use vmm::channel::{Channel, ChannelError, Stream};

use crate::log::Log;

/// The agent did not do as asked.
#[derive(Debug, Error)]
pub enum AgentError {
    /// No stream to it.
    #[error("the sandbox's agent cannot be reached")]
    Channel(#[source] ChannelError),
    /// The stream broke off: the VM is gone, or the agent is.
    #[error("the connection to the sandbox broke off")]
    Io(#[source] std::io::Error),
    /// It speaks nonsense: the guest is hostile.
    #[error("the sandbox's agent sent a malformed message")]
    Message(#[source] MessageError),
    /// Likewise.
    #[error("the sandbox's agent sent a malformed record")]
    Record(#[source] RecordError),
    /// Likewise: a record that only the host may send.
    #[error("the sandbox's agent sent a record that it may not send")]
    WrongWay,
}

impl Explain for AgentError {
    fn kind(&self) -> Kind {
        match self {
            Self::Message(MessageError::TooLong(_)) => Kind::LimitExceeded,
            Self::Channel(error) => error.kind(),
            _ => Kind::Vm,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Channel(error) => error.hint(),
            _ => None,
        }
    }
}

/// There is no connection to a port of the sandbox.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No stream to the sandbox's agent, or it broke off, or it speaks nonsense.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Nobody listens there.
    #[error("nothing in the sandbox listens on port {port} of its loopback addresses")]
    NotListening {
        /// The port.
        port: u16,
    },
    /// The guest's kernel has another reason.
    #[error("cannot connect to port {port} in the sandbox: {reason}")]
    Failed {
        /// The port.
        port: u16,
        /// The guest's words; not to be trusted.
        reason: String,
    },
}

impl Explain for ConnectError {
    fn kind(&self) -> Kind {
        match self {
            Self::Agent(AgentError::Channel(error)) => error.kind(),
            Self::Agent(error) => error.kind(),
            Self::NotListening { .. } | Self::Failed { .. } => Kind::Unavailable,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Agent(AgentError::Channel(error)) => error.hint(),
            Self::Agent(error) => error.hint(),
            Self::NotListening { .. } => {
                Some("check that the program in the sandbox runs and listens on 127.0.0.1".to_owned())
            }
            Self::Failed { .. } => None,
        }
    }
}

/// A connection to the agent of one VM. Clones share it.
#[derive(Debug, Clone)]
pub struct Agent {
    channel: Channel,
    next_id: Arc<AtomicU64>,
}

impl Agent {
    /// The agent behind this channel.
    #[must_use]
    pub fn new(channel: Channel) -> Self {
        Self { channel, next_id: Arc::new(AtomicU64::new(1)) }
    }

    /// Starts a command. Whether it could be started comes as its [`Ended`].
    ///
    /// # Errors
    /// When the agent cannot be reached, or the command is over the limits of a message.
    pub async fn exec(&self, mut exec: Exec) -> Result<Running, AgentError> {
        exec.id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let id = exec.id;
        let stream = self.request(&Request::Exec(exec)).await?;
        let (output, input) = tokio::io::split(stream);
        let control = Control { agent: self.clone(), id };
        Ok(Running { output: Output { stream: output, log: None }, input: Input(input), control })
    }

    /// Connects to what listens on a TCP port of the sandbox, on 127.0.0.1 or else on `::1`. The stream
    /// carries the connection's bytes; finishing it is an end of file for the program, dropping it
    /// before both directions have ended resets the connection.
    ///
    /// # Errors
    /// When the agent cannot be reached, or nobody listens.
    pub async fn connect(&self, port: u16) -> Result<Stream, ConnectError> {
        let mut stream = self.channel.open(Port::Forward).map_err(AgentError::Channel)?;
        write_message(&mut stream, &Connect { port }).await?;
        match read_message(&mut stream).await? {
            forward::Answer::Connected => Ok(stream),
            forward::Answer::NotListening => Err(ConnectError::NotListening { port }),
            forward::Answer::Failed { reason } => Err(ConnectError::Failed { port, reason }),
        }
    }

    async fn request(&self, request: &Request) -> Result<Stream, AgentError> {
        let wire = message::encode(request).map_err(AgentError::Message)?;
        let mut stream = self.channel.open(Port::Exec).map_err(AgentError::Channel)?;
        stream.write_all(&wire).await.map_err(AgentError::Io)?;
        Ok(stream)
    }
}

/// A command that was asked for. Dropping it ends the command.
#[derive(Debug)]
pub struct Running {
    /// What it writes, and how it ends.
    pub output: Output,
    /// What it reads.
    pub input: Input,
    /// Signals and window sizes.
    pub control: Control,
}

impl Running {
    /// The same, with all that it writes added to a log as it is read here.
    #[must_use]
    pub fn logged(mut self, log: Log) -> Self {
        self.output.log = Some(log);
        self
    }
}

/// Which of a command's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output, and everything that a terminal shows.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One thing that a command's output brings.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// It wrote what is in the buffer now.
    Wrote(Source),
    /// It ended; nothing follows.
    Ended(Ended),
}

/// The output of a command.
#[derive(Debug)]
pub struct Output {
    stream: ReadHalf<Stream>,
    log: Option<Log>,
}

impl Output {
    /// Waits for the next output, of at most [`MAX_RECORD`] bytes, and puts it into `buffer`.
    ///
    /// # Errors
    /// When the VM is gone or the guest breaks the protocol.
    pub async fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Event, AgentError> {
        let mut header = [0; RECORD_HEADER_LEN];
        self.stream.read_exact(&mut header).await.map_err(AgentError::Io)?;
        let header = RecordHeader::decode(header).map_err(AgentError::Record)?;
        buffer.resize(header.length as usize, 0);
        self.stream.read_exact(buffer).await.map_err(AgentError::Io)?;
        if let (RecordKind::Stdout | RecordKind::Stderr, Some(log)) = (header.kind, &self.log) {
            log.append(buffer);
        }
        match header.kind {
            RecordKind::Stdout => Ok(Event::Wrote(Source::Stdout)),
            RecordKind::Stderr => Ok(Event::Wrote(Source::Stderr)),
            RecordKind::Ended => message::decode(buffer).map(Event::Ended).map_err(AgentError::Message),
            RecordKind::Stdin => Err(AgentError::WrongWay),
        }
    }
}

/// The input of a command.
#[derive(Debug)]
pub struct Input(WriteHalf<Stream>);

impl Input {
    /// Sends bytes for standard input; waits while the command does not read. An empty slice is
    /// nothing, not the end.
    ///
    /// # Errors
    /// When the command or the VM is gone.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), AgentError> {
        for chunk in bytes.chunks(MAX_RECORD as usize) {
            self.record(chunk).await?;
        }
        Ok(())
    }

    /// Says that no more input comes.
    ///
    /// # Errors
    /// When the command or the VM is gone.
    pub async fn finish(&mut self) -> Result<(), AgentError> {
        self.record(&[]).await
    }

    async fn record(&mut self, chunk: &[u8]) -> Result<(), AgentError> {
        let length = u32::try_from(chunk.len()).expect("a chunk is at most MAX_RECORD");
        let mut wire = Vec::with_capacity(RECORD_HEADER_LEN + chunk.len());
        wire.extend_from_slice(&RecordHeader { kind: RecordKind::Stdin, length }.encode());
        wire.extend_from_slice(chunk);
        self.0.write_all(&wire).await.map_err(AgentError::Io)
    }
}

/// Control over a command beside its input.
#[derive(Debug, Clone)]
pub struct Control {
    agent: Agent,
    id: u64,
}

impl Control {
    /// Sends a signal to the command's process group. A command that has ended is none of our
    /// worries: that is not an error.
    ///
    /// # Errors
    /// When the agent cannot be reached.
    pub async fn signal(&self, signal: i32) -> Result<(), AgentError> {
        self.ask(Request::Signal { id: self.id, signal }).await
    }

    /// Ends the command: SIGTERM to every process of it, SIGKILL if that has not ended it within
    /// `grace`. Returns when the agent knows.
    ///
    /// # Errors
    /// When the agent cannot be reached.
    pub async fn terminate(&self, grace: Duration) -> Result<(), AgentError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.ask(Request::Terminate { id: self.id, grace_ms }).await
    }

    /// Sets the size of the command's terminal.
    ///
    /// # Errors
    /// When the agent cannot be reached.
    pub async fn resize(&self, size: WindowSize) -> Result<(), AgentError> {
        self.ask(Request::Resize { id: self.id, size }).await
    }

    async fn ask(&self, request: Request) -> Result<(), AgentError> {
        let mut stream = self.agent.request(&request).await?;
        match read_message(&mut stream).await? {
            Answer::Done | Answer::NoSuchCommand => Ok(()),
        }
    }
}

/// Reads one message from a stream of the guest's.
pub(crate) async fn read_message<T: serde::de::DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<T, AgentError> {
    let mut prefix = [0; message::PREFIX_LEN];
    stream.read_exact(&mut prefix).await.map_err(AgentError::Io)?;
    let mut body = vec![0; message::length(prefix).map_err(AgentError::Message)?];
    stream.read_exact(&mut body).await.map_err(AgentError::Io)?;
    message::decode(&body).map_err(AgentError::Message)
}

/// Writes one message to a stream of the guest's.
pub(crate) async fn write_message<T: serde::Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    value: &T,
) -> Result<(), AgentError> {
    let wire = message::encode(value).map_err(AgentError::Message)?;
    stream.write_all(&wire).await.map_err(AgentError::Io)
}
