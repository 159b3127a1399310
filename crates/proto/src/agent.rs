//! What the host asks of the agent on [`crate::Port::Exec`]: one stream per [`Request`].
//!
//! The request is the stream's first message. After [`Request::Exec`] both sides send *records*:
//! a [`RecordHeader`] of five bytes, then its payload. Signals and window sizes go on streams of
//! their own, so that they overtake input that the command has not read. If the host resets the
//! stream, nobody waits for the command any more and the agent ends it: SIGTERM, then SIGKILL.
//!
//! A command has a PID namespace of its own. When its main process ends, the processes that it left
//! behind are killed, all that was written until then is delivered, and [`Ended`] follows at once.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The first message on a stream to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Run a command; records follow.
    Exec(Exec),
    /// Send a signal to the process group of a command: the terminal's foreground group, or without
    /// a terminal the group of its main process. Answered with [`Answer`].
    Signal {
        /// [`Exec::id`].
        id: u64,
        /// Number as on Linux x86-64 and arm64.
        signal: i32,
    },
    /// End a command: SIGTERM to every process of it, SIGKILL if that has not ended it in time.
    /// Answered with [`Answer`] at once.
    Terminate {
        /// [`Exec::id`].
        id: u64,
        /// How long it has, milliseconds.
        grace_ms: u64,
    },
    /// Set the window size of a command's terminal. Answered with [`Answer`].
    Resize {
        /// [`Exec::id`].
        id: u64,
        /// The new size.
        size: WindowSize,
    },
}

/// The agent's answer to everything but [`Request::Exec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It was done.
    Done,
    /// No command of that id runs (any more).
    NoSuchCommand,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// A command to run. Byte strings, because Linux's are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Chosen by the host, unique for the life of the VM.
    pub id: u64,
    /// The program and its arguments, never empty. A program without `/` is looked up in the
    /// environment's `PATH`.
    pub argv: Vec<Vec<u8>>,
    /// The whole environment, in order; the agent only adds `PATH`, `HOSTNAME`, `HOME` (of the user,
    /// from `/etc/passwd`, else `/`) and, with a terminal, `TERM=xterm` where they are missing.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Working directory; `None` for `/`.
    pub working_dir: Option<WorkingDir>,
    /// `name`, `uid`, `name:group`, `uid:gid`; looked up in the image's `/etc/passwd` and
    /// `/etc/group`, as Docker does. `None` for root.
    pub user: Option<String>,
    /// How standard input, output and error are connected.
    pub stdio: Stdio,
    /// Keep all capabilities and system calls.
    pub privileged: bool,
}

/// A working directory in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingDir {
    /// Absolute path.
    pub path: Vec<u8>,
    /// Make it, and its parents, if it is missing (an image's `WORKDIR` may be). What is made
    /// belongs to the command's user.
    pub create: bool,
}

/// How a command's standard streams are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// Three pipes; standard input is empty (`/dev/null`) unless `stdin`.
    Pipes {
        /// Whether [`RecordKind::Stdin`] will come.
        stdin: bool,
    },
    /// A pseudo-terminal, whose output comes as [`RecordKind::Stdout`].
    Terminal {
        /// Its first size.
        size: WindowSize,
    },
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// It exited with this status, 0 to 255.
    Exited(u8),
    /// A signal of this number ended it.
    Signalled(i32),
    /// It never ran.
    NotStarted(StartError),
}

impl Ended {
    /// The exit code that stands for it, as shells and container engines have it: 128+n for signal n,
    /// 127 for a program that is not found, 126 for one that is not executable, 125 for everything
    /// else that kept it from running.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exited(code) => *code,
            // The guest may claim any.
            Self::Signalled(number) => u8::try_from(number.saturating_add(128)).unwrap_or(u8::MAX),
            Self::NotStarted(StartError::NotFound { .. }) => 127,
            Self::NotStarted(StartError::NotExecutable { .. }) => 126,
            Self::NotStarted(
                StartError::UnknownUser { .. } | StartError::WorkingDir { .. } | StartError::Internal(_),
            ) => 125,
        }
    }
}

/// Why a command could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum StartError {
    /// No such program, or its interpreter is missing.
    #[error("{program}: {reason}")]
    NotFound {
        /// As it was asked for.
        program: String,
        /// Which of the two it is.
        reason: String,
    },
    /// It exists but cannot be executed.
    #[error("{program}: {reason}")]
    NotExecutable {
        /// As it was asked for.
        program: String,
        /// The kernel's words.
        reason: String,
    },
    /// The user or group is not in the image.
    #[error("no user or group {user:?} in the image's /etc/passwd and /etc/group")]
    UnknownUser {
        /// As it was asked for.
        user: String,
    },
    /// The working directory is missing or not a directory.
    #[error("working directory {path}: {reason}")]
    WorkingDir {
        /// As it was asked for.
        path: String,
        /// The kernel's words.
        reason: String,
    },
    /// Anything else; our fault or the guest's lack of resources.
    #[error("cannot start the command: {0}")]
    Internal(String),
}

/// Length of an encoded [`RecordHeader`], bytes.
pub const RECORD_HEADER_LEN: usize = 5;

/// The longest payload of one record, bytes; stops a hostile guest from making the host allocate.
pub const MAX_RECORD: u32 = 128 * 1024;

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// Host → guest: bytes for standard input. An empty one is its end.
    Stdin = 1,
    /// Guest → host: bytes of standard output.
    Stdout = 2,
    /// Guest → host: bytes of standard error.
    Stderr = 3,
    /// Guest → host, last: an [`Ended`] in postcard's encoding.
    Ended = 4,
}

/// The header of a record: kind, then the payload's length, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// What it carries.
    pub kind: RecordKind,
    /// At most [`MAX_RECORD`].
    pub length: u32,
}

/// A record header that no honest peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// An unknown kind.
    #[error("unknown record kind {0}")]
    Kind(u8),
    /// Over [`MAX_RECORD`].
    #[error("record of {0} bytes is over the limit of {MAX_RECORD}")]
    TooLong(u32),
}

impl RecordHeader {
    /// The header as it goes over the wire.
    #[must_use]
    pub fn encode(self) -> [u8; RECORD_HEADER_LEN] {
        let [a, b, c, d] = self.length.to_le_bytes();
        [self.kind as u8, a, b, c, d]
    }

    /// Reads a header.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub fn decode(wire: [u8; RECORD_HEADER_LEN]) -> Result<Self, RecordError> {
        let [kind, a, b, c, d] = wire;
        let kind = match kind {
            1 => RecordKind::Stdin,
            2 => RecordKind::Stdout,
            3 => RecordKind::Stderr,
            4 => RecordKind::Ended,
            other => return Err(RecordError::Kind(other)),
        };
        let length = u32::from_le_bytes([a, b, c, d]);
        if length > MAX_RECORD {
            return Err(RecordError::TooLong(length));
        }
        Ok(Self { kind, length })
    }
}
