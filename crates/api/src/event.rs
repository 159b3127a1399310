//! What happens in a sandbox, told to whoever wants to know: lines of its network log and the
//! JSON-RPC's `event` notifications. A secret's value is never in one.

use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened, by the part of the sandbox in which it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// The guest asked for something on the network.
    Network {
        /// What, and what came of it.
        network: NetworkEvent,
    },
}

/// A request, connection or look-up of the guest's, once it is over or refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkEvent {
    /// The HTTP method; `CONNECT` for a connection that was not looked into, `DNS` for a look-up, `UDP`
    /// and `ICMP` for datagrams.
    pub method: String,
    /// The URL, placeholders as the guest sent them; `tcp://HOST:PORT`, `tls://HOST:PORT`,
    /// `dns:NAME` or `udp://ADDRESS:PORT` where there is none.
    pub url: String,
    /// The host that was asked for.
    pub host: String,
    /// Its port, 0 if there is none.
    pub port: u16,
    /// Status of the response; 0 if there was none.
    pub status_code: u16,
    /// Bytes of the request's body, or sent by the guest.
    pub request_bytes: u64,
    /// Bytes of the response's body, or received by the guest.
    pub response_bytes: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// Whether it was refused by the policy.
    pub blocked: bool,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_reason: Option<String>,
    /// Why, for programs: `host_not_allowed`, `private_address`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_code: Option<String>,
    /// The entry or rule that decided, whatever it decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The host to be allowed, if it would be let through then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// It failed otherwise: the host could not be reached, or broke off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
