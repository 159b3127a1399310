//! How a sandbox is, in one word for users: its recorded phase, and whether its owner lives.

use std::fmt;

use serde::Serialize;

/// How a sandbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is being made, or boots.
    Starting,
    /// It takes commands.
    Running,
    /// It is ending, or being removed.
    Stopping,
    /// It does not run, and can be started.
    Stopped,
    /// Its last start, stop or removal failed.
    Failed,
    /// Its owner was killed; what it left waits for `gc`.
    Crashed,
}

impl Status {
    /// Whether it has an owner.
    #[must_use]
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Stopping)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
        })
    }
}
