//! What a sandbox did on the network: a log of events, one line of JSON each, and what it comes to.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use api::event::{Event, NetworkEvent, What};
use serde::Serialize;

use crate::log::{self, Log};

/// Bytes of an URL that are kept: the guest chooses how long it is.
const MAX_URL: usize = 2048;

/// Adds to the log. A value of a secret is never in an event, so it is not here either.
pub(super) fn append(log: &Log, mut network: NetworkEvent) {
    if let Some((end, _)) = network.url.char_indices().find(|(index, _)| *index >= MAX_URL) {
        network.url.truncate(end);
        network.url.push('…');
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let event = Event { timestamp, what: What::Network { network } };
    let mut line = serde_json::to_vec(&event).expect("plain data can be encoded");
    line.push(b'\n');
    log.append(&line);
}

/// The events in the log of the sandbox in `directory`, oldest first. A line that was cut off by a crash
/// is left out.
///
/// # Errors
/// When the log cannot be read.
pub fn events(directory: &Path) -> io::Result<Vec<Event>> {
    let content = log::read(directory, log::NETWORK)?;
    Ok(content.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// What the events that have one host, port, method's kind and outcome in common come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The host.
    pub host: String,
    /// Its port; 0 for look-ups.
    pub port: u16,
    /// `DNS`, `CONNECT`, or a method of HTTP's.
    pub method: String,
    /// What came of it.
    pub outcome: Outcome,
    /// The reason or the rule that decided, where it was refused; what failed, where it failed.
    pub reason: Option<String>,
    /// How often.
    pub count: u64,
    /// Bytes from the guest.
    pub request_bytes: u64,
    /// Bytes to the guest.
    pub response_bytes: u64,
    /// When last, milliseconds since the Unix epoch.
    pub last: u64,
}

/// What came of something that a guest asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The policy refused it.
    Denied,
    /// It was let through and failed.
    Failed,
    /// It was let through.
    Allowed,
}

/// Adds events up, refused ones first, then by host.
#[must_use]
pub fn summarise(events: &[Event]) -> Vec<Summary> {
    let mut sums: BTreeMap<(Outcome, &str, u16, &str, Option<&str>), Summary> = BTreeMap::new();
    for Event { timestamp, what: What::Network { network } } in events {
        let (outcome, reason) = match network {
            NetworkEvent { blocked: true, block_reason, .. } => (Outcome::Denied, block_reason.as_deref()),
            NetworkEvent { error: Some(error), .. } => (Outcome::Failed, Some(error.as_str())),
            _ => (Outcome::Allowed, None),
        };
        let key = (outcome, network.host.as_str(), network.port, network.method.as_str(), reason);
        let sum = sums.entry(key).or_insert_with(|| Summary {
            host: network.host.clone(),
            port: network.port,
            method: network.method.clone(),
            outcome,
            reason: reason.map(str::to_owned),
            count: 0,
            request_bytes: 0,
            response_bytes: 0,
            last: 0,
        });
        sum.count += 1;
        sum.request_bytes = sum.request_bytes.saturating_add(network.request_bytes);
        sum.response_bytes = sum.response_bytes.saturating_add(network.response_bytes);
        sum.last = sum.last.max(*timestamp);
    }
    sums.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(host: &str, blocked: bool) -> NetworkEvent {
        NetworkEvent {
            method: "GET".into(),
            host: host.into(),
            port: 443,
            request_bytes: 1,
            response_bytes: 2,
            blocked,
            block_reason: blocked.then(|| "not allowed".into()),
            ..NetworkEvent::default()
        }
    }

    #[test]
    fn what_is_logged_is_added_up_with_refusals_first() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), log::NETWORK).unwrap();
        for network in [event("a", false), event("b", true), event("a", false)] {
            append(&log, network);
        }
        log.append(b"{\"timestamp\": 1, \"ty");
        let sums = summarise(&events(folder.path()).unwrap());
        let shown: Vec<_> = sums.iter().map(|sum| (sum.host.as_str(), sum.outcome, sum.count)).collect();
        assert_eq!(shown, [("b", Outcome::Denied, 1), ("a", Outcome::Allowed, 2)]);
        assert_eq!(sums[1].response_bytes, 4);
    }

    #[test]
    fn an_endless_url_is_cut_between_characters() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), log::NETWORK).unwrap();
        append(&log, NetworkEvent { url: "ä".repeat(100_000), ..NetworkEvent::default() });
        let events = events(folder.path()).unwrap();
        let Event { what: What::Network { network }, .. } = &events[0];
        assert!(network.url.len() <= MAX_URL + 4);
    }
}
