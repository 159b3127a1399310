//! Which look-ups were reported already: a guest that asks for the same name all the time makes one event
//! a minute, and one that asks for many a bounded number.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a name is not reported again.
const QUIET: Duration = Duration::from_secs(60);

/// Names reported in that time. Stops a guest from flooding the log with names that it makes up.
const MAX_NAMES: usize = 1024;

/// How a look-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Ending {
    Answered,
    Failed,
    Denied,
    Private,
}

#[derive(Default)]
pub(super) struct Told(Mutex<HashMap<(String, Ending), Instant>>);

impl Told {
    /// Whether this is to be reported now.
    pub(super) fn is_new(&self, name: &str, ending: Ending) -> bool {
        let now = Instant::now();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_owned(), ending);
        if told.get(&key).is_some_and(|at| now < *at + QUIET) {
            return false;
        }
        if told.len() >= MAX_NAMES {
            told.retain(|_, at| now < *at + QUIET);
            if told.len() >= MAX_NAMES {
                return false;
            }
        }
        told.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests;
