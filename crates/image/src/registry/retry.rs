//! Which failures of a registry pass, and how long to wait for that.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::RegistryError;

/// Tries of one request, or of one blob without progress between them.
const MAX_TRIES: u32 = 5;

/// Tries where nothing has come from the registry yet: a wrong name or port should not take long
/// to tell.
const MAX_FIRST_TRIES: u32 = 3;

/// The first wait; each further one is twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(250);

/// The longest wait that a registry may ask for. Docker Hub's limit, for example, passes after
/// hours: then it is better to say so.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Failures of one request so far.
#[derive(Debug)]
pub(super) struct Retries {
    failures: u32,
    /// The registry has answered before.
    known: bool,
}

impl Retries {
    /// For a request to a registry that may not exist.
    pub(super) fn first() -> Self {
        Self { failures: 0, known: false }
    }

    /// For a request to a registry that has answered before.
    pub(super) fn further() -> Self {
        Self { failures: 0, known: true }
    }

    /// How long to wait before the next try, or `None` if there is no point in one.
    pub(super) fn delay(&mut self, error: &RegistryError) -> Option<Duration> {
        let tries = match error {
            RegistryError::Unreachable { .. } | RegistryError::Silent { .. } if !self.known => {
                MAX_FIRST_TRIES
            }
            error if error.passes() => MAX_TRIES,
            _ => return None,
        };
        self.failures += 1;
        if self.failures >= tries {
            return None;
        }
        let delay = error.retry_after().unwrap_or(FIRST_DELAY * 2_u32.pow(self.failures - 1));
        (delay <= MAX_DELAY).then_some(delay)
    }

    /// Something went well in between.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// What `Retry-After` asks for, if it is in seconds. (As a date it depends on two clocks.)
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
