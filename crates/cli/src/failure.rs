//! What a command failed with, as the user sees it: message, causes, hint, exit code.

use std::error::Error;

use api::{Explain, Kind};

use crate::output::{harmless, say_styled};

/// Exit code of `run` for a failure of ours rather than the command's, as in Docker.
pub(crate) const RUN_FAILED: u8 = 125;

/// Exit code of the other commands.
const FAILED: u8 = 1;

/// Exit code for a command line that makes no sense; clap uses the same.
pub(crate) const USAGE: u8 = 2;

/// Exit code after Ctrl-C: 128 + SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
    code: u8,
}

/// What a command ends with: its exit code, or why it failed.
pub(crate) type Outcome = Result<u8, Failure>;

impl<E: Explain + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let kind = error.kind();
        let code = if kind == Kind::Interrupted { INTERRUPTED } else { FAILED };
        Self { kind, hint: error.hint(), error: Box::new(error), code }
    }
}

impl Failure {
    /// A failure to read or write what the user pointed us at.
    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        IoFailure { what: what.into(), source }.into()
    }

    /// A command line that parses but makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, ..UsageFailure(message.into()).into() }
    }

    /// The user pressed Ctrl-C.
    pub(crate) fn interrupted() -> Self {
        InterruptedFailure.into()
    }

    /// Its text and those of its causes, in one line.
    pub(crate) fn with_causes(&self) -> String {
        api::error::with_causes(self.error.as_ref())
    }

    /// What sort it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it is an interruption.
    pub(crate) fn is_interruption(&self) -> bool {
        self.kind == Kind::Interrupted
    }

    /// The same failure as one of `run`, whose exit code must not be taken for the command's.
    pub(crate) fn of_run(self) -> Self {
        let code = if self.code == FAILED { RUN_FAILED } else { self.code };
        Self { code, ..self }
    }

    /// The same failure as one of a command line that makes no sense.
    pub(crate) fn of_usage(self) -> Self {
        Self { code: USAGE, ..self }
    }

    /// Tells the user, and gives the exit code.
    pub(crate) fn report(&self) -> u8 {
        if self.kind == Kind::Interrupted {
            return self.code;
        }
        let mut text = format!("\x1b[1;31merror\x1b[0m: {}\n", harmless(&self.error.to_string()));
        let mut source = self.error.source();
        while let Some(cause) = source {
            text += &format!("  caused by: {}\n", harmless(&cause.to_string()));
            source = cause.source();
        }
        if let Some(hint) = &self.hint {
            text += &format!("\x1b[1mhint\x1b[0m: {}\n", harmless(hint));
        }
        say_styled(&text);
        self.code
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct IoFailure {
    what: String,
    source: std::io::Error,
}

impl Explain for IoFailure {
    fn kind(&self) -> Kind {
        api::error::io_kind(&self.source)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageFailure(String);

impl Explain for UsageFailure {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }
}

#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct InterruptedFailure;

impl Explain for InterruptedFailure {
    fn kind(&self) -> Kind {
        Kind::Interrupted
    }
}
