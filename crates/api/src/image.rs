//! What an image says about how to run it: the part of the OCI image configuration that counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The run configuration of an image, as in the OCI image specification's `config` object.
/// Absent lists and empty lists mean the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// Environment, `NAME=value`, in the image's order.
    pub env: Vec<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`; empty for root.
    pub user: String,
    /// Working directory, absolute; empty for `/`.
    pub working_dir: String,
    /// Always the first words of the command.
    pub entrypoint: Vec<String>,
    /// The words after the entrypoint if the user gives none.
    pub cmd: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports the image says it serves, `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// The signal that asks the command to stop, `SIGTERM` if empty.
    pub stop_signal: String,
}
