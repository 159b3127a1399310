//! A sandbox's life as it is recorded and shown: its phases and which may follow which, its
//! history, and what it holds on the host.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Phase {
    /// Its files are being made. Every sandbox begins here.
    Creating,
    /// Its files are there; it has no VM yet.
    Created,
    /// The VM is booting.
    Starting,
    /// Its agent has answered.
    Running,
    /// The VM is being ended, or has ended and is being waited for.
    Stopping,
    /// There is no VM; the files are kept, and it can start again.
    Stopped,
    /// What it holds on the host is being released.
    Cleaning,
    /// It holds nothing any more. Final.
    Cleaned,
    /// [`Phase::Creating`] failed.
    CreateFailed,
    /// [`Phase::Starting`] failed; there may be half a VM.
    StartFailed,
    /// [`Phase::Stopping`] failed; the VM may still be there.
    StopFailed,
    /// [`Phase::Cleaning`] failed; something is left on the host.
    CleanupFailed,
}

/// Not the name of a phase.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a phase of a sandbox")]
pub struct UnknownPhase(String);

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 12] = [
        Self::Creating,
        Self::Created,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Stopped,
        Self::Cleaning,
        Self::Cleaned,
        Self::CreateFailed,
        Self::StartFailed,
        Self::StopFailed,
        Self::CleanupFailed,
    ];

    /// Whether a sandbox may go from this phase to `next`.
    ///
    /// * Forward one step at a time, and from stopped to starting again.
    /// * Work in progress may fail, and what failed may be tried again.
    /// * An owner can die in any phase. Whoever finds its sandbox ends the VM where there may be
    ///   one (stopping) or releases everything at once (cleaning), also when the owner died while
    ///   stopping or cleaning: these two may follow themselves.
    /// * Nothing follows cleaned.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match next {
            Self::Creating => self == Self::CreateFailed,
            Self::Created | Self::CreateFailed => self == Self::Creating,
            Self::Starting => matches!(self, Self::Created | Self::Stopped | Self::StartFailed),
            Self::Running | Self::StartFailed => self == Self::Starting,
            Self::Stopping => self.may_have_vm(),
            Self::Stopped | Self::StopFailed => self == Self::Stopping,
            Self::Cleaning => self != Self::Cleaned,
            Self::Cleaned | Self::CleanupFailed => self == Self::Cleaning,
        }
    }

    /// Whether there may be a VM that has to be stopped.
    #[must_use]
    pub fn may_have_vm(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Stopping | Self::StartFailed | Self::StopFailed)
    }

    /// Whether it says that something failed.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::CreateFailed | Self::StartFailed | Self::StopFailed | Self::CleanupFailed)
    }

    /// Its name, as stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Cleaning => "cleaning",
            Self::Cleaned => "cleaned",
            Self::CreateFailed => "create_failed",
            Self::StartFailed => "start_failed",
            Self::StopFailed => "stop_failed",
            Self::CleanupFailed => "cleanup_failed",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = UnknownPhase;

    fn from_str(text: &str) -> Result<Self, UnknownPhase> {
        let known = Self::ALL.into_iter().find(|phase| phase.as_str() == text);
        known.ok_or_else(|| UnknownPhase(text.to_owned()))
    }
}

impl From<Phase> for String {
    fn from(phase: Phase) -> Self {
        phase.as_str().into()
    }
}

impl TryFrom<String> for Phase {
    type Error = UnknownPhase;

    fn try_from(text: String) -> Result<Self, UnknownPhase> {
        text.parse()
    }
}

/// One change of phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Rises with each entry of any sandbox. The order of events is this, not the time.
    pub seq: i64,
    /// When, in milliseconds since 1970; the host's clock may have jumped between two entries.
    pub at: i64,
    /// The phase before; `None` for the entry that made the sandbox.
    pub from: Option<Phase>,
    /// The phase after.
    pub to: Phase,
    /// Why, for people.
    pub note: Option<String>,
}

/// Something a sandbox holds on the host, which has to go when the sandbox does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Resource {
    /// A directory with everything in it.
    Directory {
        /// Where.
        #[serde(with = "path_bytes")]
        path: PathBuf,
    },
    /// A Unix socket.
    Socket {
        /// Where.
        #[serde(with = "path_bytes")]
        path: PathBuf,
    },
    /// A scratch disk that has a name, unlike that of a sandbox which goes with its owner.
    ScratchDisk {
        /// Where.
        #[serde(with = "path_bytes")]
        path: PathBuf,
    },
    /// A file that keeps the image's layers in the store.
    ImagePin {
        /// Where.
        #[serde(with = "path_bytes")]
        path: PathBuf,
    },
    /// A process of the host.
    Process {
        /// Its process ID, which the host reuses.
        pid: u32,
        /// When it started, in clock ticks since the host's boot (field 22 of
        /// `/proc/PID/stat`): tells it from a later process with its ID.
        start_time: u64,
    },
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path } => write!(f, "directory {}", path.display()),
            Self::Socket { path } => write!(f, "socket {}", path.display()),
            Self::ScratchDisk { path } => write!(f, "scratch disk {}", path.display()),
            Self::ImagePin { path } => write!(f, "image pin {}", path.display()),
            Self::Process { pid, .. } => write!(f, "process {pid}"),
        }
    }
}

/// Paths as text where they are UTF-8, which JSON demands, and as a list of bytes where not:
/// whatever the host allows as the name of a home directory comes back as it was.
mod path_bytes {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Text(PathBuf),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => text.serialize(serializer),
            None => path.as_os_str().as_bytes().serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Text(path) => path,
            Stored::Bytes(bytes) => OsStr::from_bytes(&bytes).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Phase::{
        Cleaned, Cleaning, CleanupFailed, CreateFailed, Created, Creating, Running, StartFailed, Starting,
        StopFailed, Stopped, Stopping,
    };
    use super::*;

    #[test]
    fn each_phase_goes_only_where_the_table_says() {
        let table: [(Phase, &[Phase]); 12] = [
            (Creating, &[Created, CreateFailed, Cleaning]),
            (Created, &[Starting, Cleaning]),
            (Starting, &[Running, StartFailed, Stopping, Cleaning]),
            (Running, &[Stopping, Cleaning]),
            (Stopping, &[Stopping, Stopped, StopFailed, Cleaning]),
            (Stopped, &[Starting, Cleaning]),
            (Cleaning, &[Cleaning, Cleaned, CleanupFailed]),
            (Cleaned, &[]),
            (CreateFailed, &[Creating, Cleaning]),
            (StartFailed, &[Starting, Stopping, Cleaning]),
            (StopFailed, &[Stopping, Cleaning]),
            (CleanupFailed, &[Cleaning]),
        ];
        assert_eq!(table.map(|(from, _)| from), Phase::ALL.map(|phase| table[phase as usize].0));
        for (from, allowed) in table {
            for to in Phase::ALL {
                assert_eq!(from.may_become(to), allowed.contains(&to), "{from} to {to}");
            }
        }
    }

    #[test]
    fn an_owner_may_die_in_any_phase_and_all_can_still_be_cleaned() {
        for phase in Phase::ALL.into_iter().filter(|phase| *phase != Cleaned) {
            assert!(phase.may_become(Cleaning), "{phase}");
            assert_eq!(phase.may_become(Stopping), phase.may_have_vm(), "{phase}");
        }
    }

    #[test]
    fn what_failed_can_be_tried_again() {
        for (failed, again) in [
            (CreateFailed, Creating),
            (StartFailed, Starting),
            (StopFailed, Stopping),
            (CleanupFailed, Cleaning),
        ] {
            assert!(failed.is_failure() && again.may_become(failed) && failed.may_become(again));
        }
        assert_eq!(Phase::ALL.into_iter().filter(|phase| phase.is_failure()).count(), 4);
    }

    #[test]
    fn a_phase_reads_as_it_is_written() {
        for (index, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase as usize, index);
            assert_eq!(phase.to_string().parse(), Ok(phase));
        }
        for wrong in ["", "Running", "dead", "running "] {
            assert!(wrong.parse::<Phase>().is_err(), "{wrong}");
        }
    }
}
