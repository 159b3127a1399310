//! What can go wrong with the state database, and how SQLite's errors become that.

use std::io;
use std::path::{Path, PathBuf};

use api::error::io_kind;
use api::lifecycle::Phase;
use api::{Explain, Kind, SandboxId, SandboxName};
use rusqlite::ErrorCode;
use thiserror::Error;

use super::damage::DatabaseFile;

/// The state database could not be used, or refused a change.
#[derive(Debug, Error)]
pub enum StateError {
    /// It is not what this program wrote.
    #[error("the state database {} is damaged; {}", path.display(), Copied(saved.as_deref()))]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// Where a copy of it is; `None` if none could be made.
        saved: Option<PathBuf>,
        /// How that was noticed.
        source: Damage,
    },
    /// A newer program wrote it.
    #[error("the state database {} has version {found}, this program knows {known}", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version this program can use.
        known: i64,
    },
    /// Another process kept it locked for too long.
    #[error("the state database {} is busy", path.display())]
    Busy {
        /// The database.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// The host does not let it be read or written: a full disk, a permission, a failing device.
    #[error("cannot use the state database {}", path.display())]
    Unusable {
        /// The database.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// A file next to it could not be made, copied or moved.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// SQLite did not do what was asked.
    #[error("a query of the state database {} failed", path.display())]
    Query {
        /// The database.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// There is no such sandbox.
    #[error("sandbox {0} not found")]
    NotFound(SandboxId),
    /// Another sandbox has this ID.
    #[error("the ID {0} is in use")]
    IdTaken(SandboxId),
    /// Another sandbox has this name.
    #[error("the name {name} is that of sandbox {holder}")]
    NameTaken {
        /// The name.
        name: SandboxName,
        /// Whose it is.
        holder: SandboxId,
    },
    /// A sandbox does not go from one of these phases to the other.
    #[error("sandbox {id} is {from}, it cannot become {to}")]
    Transition {
        /// The sandbox.
        id: SandboxId,
        /// Its phase.
        from: Phase,
        /// The phase asked for.
        to: Phase,
    },
    /// It cannot be called cleaned while it holds something on the host.
    #[error("sandbox {id} still holds {count} resources")]
    Holds {
        /// The sandbox.
        id: SandboxId,
        /// How many.
        count: usize,
    },
    /// It cannot be forgotten before it is cleaned.
    #[error("sandbox {id} is {phase}, only a cleaned one can be forgotten")]
    NotCleaned {
        /// The sandbox.
        id: SandboxId,
        /// Its phase.
        phase: Phase,
    },
}

/// How damage was noticed.
#[derive(Debug, Error)]
pub enum Damage {
    /// SQLite noticed it, or a value is none that this program writes.
    #[error(transparent)]
    Sql(rusqlite::Error),
    /// From the files alone.
    #[error("{0}")]
    Files(&'static str),
}

/// Words for where the copy of a damaged database is.
struct Copied<'a>(Option<&'a Path>);

impl std::fmt::Display for Copied<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(path) => write!(f, "a copy was saved as {}", path.display()),
            None => f.write_str("no copy of it could be saved"),
        }
    }
}

impl Explain for StateError {
    fn kind(&self) -> Kind {
        match self {
            Self::Corrupt { .. } => Kind::Corrupt,
            Self::Busy { .. } => Kind::Timeout,
            Self::Unusable { .. } => Kind::HostUnready,
            Self::File { source, .. } => io_kind(source),
            Self::Query { .. } | Self::Holds { .. } => Kind::Internal,
            Self::NotFound(_) => Kind::NotFound,
            Self::Newer { .. }
            | Self::IdTaken(_)
            | Self::NameTaken { .. }
            | Self::Transition { .. }
            | Self::NotCleaned { .. } => Kind::Conflict,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Corrupt { .. } => {
                "`matchlock gc --rebuild-state` moves it aside and makes a new one; sandboxes that run are \
                 not ended"
            }
            Self::Newer { .. } => {
                "use the newer matchlock, or set MATCHLOCK_HOME to another directory for this one"
            }
            Self::Busy { .. } => "try again; if it stays so, end the matchlock process that hangs",
            Self::Unusable { .. } | Self::File { .. } => {
                "set MATCHLOCK_HOME to a directory of yours with some free space"
            }
            Self::NotFound(_) => LIST,
            Self::NameTaken { .. } => "choose another name, or remove that sandbox with `matchlock rm`",
            Self::NotCleaned { .. } => "remove it with `matchlock rm`",
            _ => return None,
        };
        Some(hint.into())
    }
}

const LIST: &str = "`matchlock list` shows which there are";

/// What a user named is not one sandbox.
#[derive(Debug, Error)]
pub enum FindError {
    /// It is none.
    #[error("sandbox {0:?} not found")]
    NotFound(String),
    /// It is the beginning of several IDs.
    #[error("{text:?} can be any of {}", listed(candidates, *more))]
    Ambiguous {
        /// What was said.
        text: String,
        /// Whose IDs begin with it, in order, some of many.
        candidates: Vec<SandboxId>,
        /// How many there are besides.
        more: usize,
    },
    /// The database could not be read.
    #[error(transparent)]
    State(#[from] StateError),
}

fn listed(ids: &[SandboxId], more: usize) -> String {
    let mut words: Vec<String> = ids.iter().map(ToString::to_string).collect();
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words.join(", ")
}

impl Explain for FindError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::Ambiguous { .. } => Kind::InvalidInput,
            Self::State(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound(_) => Some(LIST.into()),
            Self::Ambiguous { .. } => Some("use more digits of the ID, or the name".into()),
            Self::State(error) => error.hint(),
        }
    }
}

/// Why work on a database stopped, before it is known what that means for which file.
#[derive(Debug)]
pub(super) enum Fault {
    Sql(rusqlite::Error),
    Damaged(&'static str),
    Refused(StateError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StateError> for Fault {
    fn from(error: StateError) -> Self {
        Self::Refused(error)
    }
}

impl Fault {
    /// The error to report for the database in `file`. Of a damaged one a copy is made.
    pub(super) fn of(self, file: &DatabaseFile) -> StateError {
        let path = file.path().to_owned();
        let source = match self {
            Self::Refused(error) => return error,
            Self::Damaged(what) => Damage::Files(what),
            Self::Sql(source) if tells_of_damage(&source) => Damage::Sql(source),
            Self::Sql(source) => return failure(path, source),
        };
        StateError::Corrupt { path, saved: file.save(), source }
    }
}

fn tells_of_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, SqlInputError, SqliteFailure,
        Utf8Error,
    };
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => true,
        // The statements are fixed and fit the tables; if one does not, the tables are others.
        Some(ErrorCode::Unknown) => match error {
            SqlInputError { .. } => true,
            SqliteFailure(_, message) => {
                message.as_ref().is_some_and(|text| text.starts_with("no such table"))
            }
            _ => false,
        },
        Some(_) => false,
        None => matches!(
            error,
            FromSqlConversionFailure(..)
                | IntegralValueOutOfRange(..)
                | InvalidColumnType(..)
                | Utf8Error(..)
        ),
    }
}

fn failure(path: PathBuf, source: rusqlite::Error) -> StateError {
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StateError::Busy { path, source },
        Some(
            ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::OutOfMemory,
        ) => StateError::Unusable { path, source },
        _ => StateError::Query { path, source },
    }
}
