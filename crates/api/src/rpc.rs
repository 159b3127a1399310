//! The JSON-RPC's own vocabulary: identifiers of requests, parameters and results of its methods.
//! How lines are read and written is `rpc`'s.
//!
//! What a client may leave out is an `Option` or has a default, so that `null` and a missing key
//! mean the same. Bytes are base64 of the standard alphabet, with padding.

mod failure;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::SandboxId;
use crate::forward::{Binding, Forward};

pub use failure::{Code, Failure};

/// The version that every message names.
pub const VERSION: &str = "2.0";

/// A request's identifier, chosen by the client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A whole number.
    Number(i64),
    /// Any text.
    Text(String),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// Of `exec`, `exec_stream`, `exec_pipe` and `exec_tty`: either `command` or `argv`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecParams {
    /// A line for the guest's `sh -c`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// A program and its arguments, which no shell sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// Replaces the image's working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Replaces the image's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Added to the image's environment, and overriding it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Lines of the terminal; `exec_tty` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u16>,
    /// Characters a line of the terminal; `exec_tty` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cols: Option<u16>,
}

/// Of `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecResult {
    /// 0 to 255; 128+n if signal n ended it.
    pub exit_code: u8,
    /// Standard output, base64.
    pub stdout: String,
    /// Standard error, base64.
    pub stderr: String,
    /// How long it ran.
    pub duration_ms: u64,
}

/// Of the `exec` methods that stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitResult {
    /// 0 to 255; 128+n if signal n ended it.
    pub exit_code: u8,
    /// How long it ran.
    pub duration_ms: u64,
}

/// Names a request: of `cancel` and `….stdin_eof`, and of notifications without data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The request's identifier.
    pub id: Id,
}

/// Of `….resize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizeParams {
    /// The request that the terminal belongs to.
    pub id: Id,
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

/// Of `….signal`, an addition of ours: a signal to the command's process group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalParams {
    /// The request that the command belongs to.
    pub id: Id,
    /// Number as on Linux x86-64 and arm64.
    pub signal: i32,
}

/// Of `cancel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelResult {
    /// Whether there was such a request; it answers [`Code::CANCELLED`] once it has ended.
    pub cancelled: bool,
}

/// Of `log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogResult {
    /// Base64.
    pub content: String,
}

/// Of `close`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CloseParams {
    /// How long the guest may take to end by itself; 0 or missing: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
}

/// Of `port_forward`. It replaces what the same session asked for earlier.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForwardParams {
    /// Which ports; none ends all.
    pub forwards: Vec<Forward>,
    /// Addresses of the host to listen on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<IpAddr>>,
}

/// Of `port_forward`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortForwardResult {
    /// One for each address and port.
    pub bindings: Vec<Binding>,
}

/// Of `allow_list_add` and `allow_list_delete`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowListParams {
    /// Hosts as in [`crate::network::NetworkSpec::allowed_hosts`].
    pub hosts: Vec<String>,
}

/// Of `allow_list_add`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowListAddResult {
    /// Those that were not allowed before.
    pub added: Vec<String>,
    /// All that are now.
    pub allowed_hosts: Vec<String>,
}

/// Of `allow_list_delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowListDeleteResult {
    /// Those that were allowed before.
    pub removed: Vec<String>,
    /// All that are now. If there are none, all hosts are blocked.
    pub allowed_hosts: Vec<String>,
}

/// Of `status`, an addition of ours: whom one talks to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusResult {
    /// The sandbox.
    pub id: SandboxId,
    /// The process that owns it.
    pub pid: u32,
    /// Its image, as it was asked for.
    pub image: String,
    /// Since it was ready.
    pub uptime_ms: u64,
}
