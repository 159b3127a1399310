//! The network of a sandbox, as users ask for it: what it may reach, the secrets it may use without
//! ever having them, and the hooks on its requests.
//!
//! Nothing here is checked; `policy` turns it into something that decides, or says what is wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The network of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSpec {
    /// No interface but `lo`.
    pub no_network: bool,
    /// Look into connections of an open network, too.
    pub intercept: bool,
    /// Hosts that may be reached: names with globs, `host:port`, addresses, CIDR blocks. Any, or any
    /// secret, seals the network: nothing else can be reached.
    pub allowed_hosts: Vec<String>,
    /// Hosts, also allowed, whose TLS connections pass as they are: for clients that pin certificates.
    pub passthrough_hosts: Vec<String>,
    /// Refuse addresses that are not public unless they are allowed one by one.
    pub block_private_ips: bool,
    /// Secrets by the name of their variable in the guest.
    pub secrets: BTreeMap<String, SecretSpec>,
    /// Hooks on requests, in the order in which they are tried.
    pub rules: Vec<RuleSpec>,
    /// Unix socket of the client that answers rules with a callback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback_socket: Option<PathBuf>,
    /// The most bytes of one IP packet; `None` for what is fastest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            no_network: false,
            intercept: false,
            allowed_hosts: Vec::new(),
            passthrough_hosts: Vec::new(),
            block_private_ips: true,
            secrets: BTreeMap::new(),
            rules: Vec::new(),
            callback_socket: None,
            mtu: None,
        }
    }
}

impl NetworkSpec {
    /// Whether only what is allowed can be reached from the beginning.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        !(self.allowed_hosts.is_empty() && self.passthrough_hosts.is_empty() && self.secrets.is_empty())
    }

    /// Whether connections are looked into, for which the guest has to trust a certificate of ours.
    #[must_use]
    pub fn looks_inside(&self) -> bool {
        !self.no_network && (self.intercept || self.is_sealed() || !self.rules.is_empty())
    }
}

/// A secret, without its value, which is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSpec {
    /// What the guest has in its place.
    pub placeholder: String,
    /// The hosts that get the value, as in [`NetworkSpec::allowed_hosts`]; `http://HOST` for one that
    /// gets it over plain HTTP.
    pub hosts: Vec<String>,
    /// Put the placeholder back where such a host answers with the value.
    #[serde(default = "yes")]
    pub mask: bool,
}

fn yes() -> bool {
    true
}

/// A hook on requests or their responses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleSpec {
    /// What it is called in explanations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it is applied.
    pub phase: Phase,
    /// Hosts it is for, globs; none means all.
    pub hosts: Vec<String>,
    /// Methods it is for; none means all.
    pub methods: Vec<String>,
    /// Path it is for, a glob; none means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What happens.
    pub action: Action,
    /// Ask the client at [`NetworkSpec::callback_socket`], with this identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback_id: Option<String>,
    /// How long the client may take to answer, ms; 5000 if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Before: headers to be set.
    pub set_headers: BTreeMap<String, String>,
    /// Before: headers to be left out.
    pub delete_headers: Vec<String>,
    /// Before: parameters of the query to be set.
    pub set_query: BTreeMap<String, String>,
    /// Before: parameters of the query to be left out.
    pub delete_query: Vec<String>,
    /// Before: another path, without a query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite_path: Option<String>,
    /// After: headers to be set.
    pub set_response_headers: BTreeMap<String, String>,
    /// After: headers to be left out.
    pub delete_response_headers: Vec<String>,
    /// After: texts to be replaced in the body.
    pub body_replacements: Vec<Replacement>,
}

/// When a rule is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// To a request, before it goes to its host.
    #[default]
    Before,
    /// To a response, before it goes to the guest.
    After,
}

/// What a rule does. With anything to change, `allow` means `mutate`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing against it.
    #[default]
    Allow,
    /// Refuses it.
    Block,
    /// Changes it.
    Mutate,
}

/// A text and what takes its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// The text; not empty.
    pub find: String,
    /// What takes its place; clients leave out what is empty.
    #[serde(default)]
    pub replace: String,
}
