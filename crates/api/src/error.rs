//! How an error is told to a user: its kind decides the exit code and what a program can match
//! on, its hint says what to do next. Each crate has its own error enums and implements
//! [`Explain`] for them; nothing else knows how they are shown.

use serde::{Deserialize, Serialize};

/// What sort of thing went wrong, for programs (`error.data.kind` of the JSON-RPC, `kind` in
/// `--json` output).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The request itself makes no sense: a flag, a name, a number.
    InvalidInput,
    /// What was named does not exist.
    NotFound,
    /// It exists already, or is in use by somebody else.
    Conflict,
    /// Credentials are missing or wrong, or the other side forbids it.
    Denied,
    /// Another machine did not answer, or answered with a failure of its own.
    Unavailable,
    /// Bytes that are not what they must be: truncated, malformed, of another digest.
    Corrupt,
    /// A limit of ours stopped it.
    LimitExceeded,
    /// The host lacks something: a program, disk space, memory, a permission.
    HostUnready,
    /// The VM failed to start or died.
    Vm,
    /// It took too long.
    Timeout,
    /// The user stopped it.
    Interrupted,
    /// A defect of ours.
    Internal,
}

/// What the edge needs to know of an error besides its text and its sources.
pub trait Explain: std::error::Error {
    /// Its kind.
    fn kind(&self) -> Kind;

    /// What the user can do about it, as one sentence without a full stop; `None` where the
    /// message says it all.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// An error's text and those of its causes, in one line.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The kind of an I/O error on the host's own files.
#[must_use]
pub fn io_kind(error: &std::io::Error) -> Kind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::NotFound => Kind::NotFound,
        Io::PermissionDenied | Io::StorageFull | Io::QuotaExceeded | Io::ReadOnlyFilesystem => {
            Kind::HostUnready
        }
        Io::UnexpectedEof | Io::InvalidData => Kind::Corrupt,
        Io::TimedOut => Kind::Timeout,
        Io::Interrupted => Kind::Interrupted,
        _ => Kind::Internal,
    }
}
