//! How a method says that it failed: the `error` of a response.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::with_causes;
use crate::{Explain, Kind};

/// The `code` of an error: those of JSON-RPC 2.0, and ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub i32);

impl Code {
    /// The line is not JSON.
    pub const PARSE: Self = Self(-32700);
    /// It is JSON but not a request, or not one that can be taken now.
    pub const INVALID_REQUEST: Self = Self(-32600);
    /// No such method.
    pub const UNKNOWN_METHOD: Self = Self(-32601);
    /// Not the parameters of that method.
    pub const INVALID_PARAMS: Self = Self(-32602);
    /// A defect of ours.
    pub const INTERNAL: Self = Self(-32603);
    /// The VM is not there, failed to start, or is gone.
    pub const VM: Self = Self(-32000);
    /// The command could not be run.
    pub const EXEC: Self = Self(-32001);
    /// The file could not be read or written.
    pub const FILE: Self = Self(-32002);
    /// The request was cancelled.
    pub const CANCELLED: Self = Self(-32003);
}

/// The `error` of a response. [`Explain`] says its kind and hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Wire", from = "Wire")]
pub struct Failure {
    /// Which sort of failure, for JSON-RPC clients.
    pub code: Code,
    /// Which sort of failure, in our own terms.
    pub kind: Kind,
    /// What failed, with its causes, in one line.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// The exit code of a tool whose command could not be started: 125, 126 or 127.
    pub exit_code: Option<u8>,
}

impl Failure {
    /// A failure without a hint.
    #[must_use]
    pub fn new(code: Code, kind: Kind, message: impl Into<String>) -> Self {
        Self { code, kind, message: message.into(), hint: None, exit_code: None }
    }

    /// The failure that `error` is, told with its causes.
    #[must_use]
    pub fn of(code: Code, error: &impl Explain) -> Self {
        Self { hint: error.hint(), ..Self::new(code, error.kind(), with_causes(error)) }
    }

    /// Parameters that make no sense.
    #[must_use]
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(Code::INVALID_PARAMS, Kind::InvalidInput, message)
    }

    /// The request was cancelled.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(Code::CANCELLED, Kind::Interrupted, "the request was cancelled")
    }

    /// The same with this hint.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Explain for Failure {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

/// The form that JSON-RPC gives it.
#[derive(Serialize, Deserialize)]
struct Wire {
    code: Code,
    message: String,
    data: Option<Data>,
}

#[derive(Serialize, Deserialize)]
struct Data {
    kind: AnyKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
}

/// A newer peer may know kinds that we do not.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum AnyKind {
    Known(Kind),
    Unknown(String),
}

impl From<Failure> for Wire {
    fn from(failure: Failure) -> Self {
        let Failure { code, kind, message, hint, exit_code } = failure;
        Self { code, message, data: Some(Data { kind: AnyKind::Known(kind), hint, exit_code }) }
    }
}

impl From<Wire> for Failure {
    fn from(wire: Wire) -> Self {
        let data =
            wire.data.unwrap_or(Data { kind: AnyKind::Known(Kind::Internal), hint: None, exit_code: None });
        let kind = match data.kind {
            AnyKind::Known(kind) => kind,
            AnyKind::Unknown(_) => Kind::Internal,
        };
        Self { code: wire.code, kind, message: wire.message, hint: data.hint, exit_code: data.exit_code }
    }
}
