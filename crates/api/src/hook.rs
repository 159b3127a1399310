//! What is said on the callback socket: one connection a call, one line of JSON each way.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use crate::network::{Action, Phase, Replacement, RuleSpec};

/// Rules, and who answers those with a callback: the RPC's `network.interception`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interception {
    /// The rules, in the order in which they are tried.
    pub rules: Vec<RuleSpec>,
    /// A Unix socket of the client's.
    pub callback_socket: Option<PathBuf>,
}

/// Names and their values, each in order.
pub type MultiMap = BTreeMap<String, Vec<String>>;

/// A question to the client. It never contains a secret's value, only placeholders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRequest {
    /// The rule's identifier.
    pub callback_id: String,
    /// Before or after.
    pub phase: Phase,
    /// Host of the request.
    pub host: String,
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// Its query; a parameter that is there once is a text, as clients expect.
    pub query: HeaderMap,
    /// Its headers.
    pub request_headers: MultiMap,
    /// Status of the response; 0 before.
    pub status_code: u16,
    /// Its headers; none before.
    pub response_headers: MultiMap,
    /// The response is a stream of server-sent events.
    pub is_sse: bool,
}

/// The client's answer. A map that is there replaces the whole map: an empty one is not a missing one. A key
/// that it cannot have is an error: whoever wrote it meant something, and it was not "allow".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HookReply {
    /// `allow` if missing.
    pub action: Option<Action>,
    /// Changes to the request.
    pub request: Option<RequestChange>,
    /// Changes to the response.
    pub response: Option<ResponseChange>,
    /// The client failed: the request is denied.
    pub error: Option<String>,
}

/// Changes to a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RequestChange {
    /// All of its headers.
    pub headers: Option<HeaderMap>,
    /// All of its query.
    pub query: Option<HeaderMap>,
    /// Its path.
    pub path: Option<String>,
}

/// Changes to a response.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResponseChange {
    /// All of its headers.
    pub headers: Option<HeaderMap>,
    /// Texts to be replaced in its body.
    #[serde(deserialize_with = "replacements")]
    pub body_replacements: Option<Vec<Replacement>>,
    /// All of its body, base64.
    pub set_body_base64: Option<String>,
}

/// Names with one value or several: clients send either.
pub type HeaderMap = BTreeMap<String, Values>;

/// One value or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Values {
    /// One.
    One(String),
    /// Several, in order.
    Many(Vec<String>),
}

impl Values {
    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// Replacements as clients write them, which leave out a `replace` that is empty.
fn replacements<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Replacement>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        find: String,
        #[serde(default)]
        replace: String,
    }
    let written: Option<Vec<Written>> = Option::deserialize(deserializer)?;
    let replacement = |Written { find, replace }| Replacement { find, replace };
    Ok(written.map(|all| all.into_iter().map(replacement).collect()))
}
