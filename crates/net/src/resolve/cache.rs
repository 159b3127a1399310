//! Look-ups that were made, for as long as they count, and those being made, so that the same name is
//! asked for once at a time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use policy::HostName;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Outcome;

/// Names remembered; stops a guest from filling our memory by resolving.
const MAX_ENTRIES: usize = 2048;

#[derive(Default)]
pub(super) struct Cache(Mutex<HashMap<HostName, Entry>>);

enum Entry {
    Known { outcome: Outcome, until: Instant },
    Asked(Pending),
}

/// A look-up that somebody makes; it holds the outcome in the end, or is closed without one.
pub(super) type Pending = watch::Receiver<Option<Outcome>>;

/// What is there about a name.
pub(super) enum Found {
    /// The outcome of an earlier look-up.
    Known(Outcome),
    /// Somebody asks already.
    Asked(Pending),
    /// Nothing: the caller is to ask and to tell.
    Missing(watch::Sender<Option<Outcome>>, Pending),
    /// Nothing, and no room for more.
    Full,
}

impl Cache {
    pub(super) fn find(&self, name: &HostName) -> Found {
        let now = Instant::now();
        let mut entries = self.lock();
        match entries.get(name) {
            Some(Entry::Known { outcome, until }) if *until > now => return Found::Known(outcome.clone()),
            // A closed one is that of a look-up that ended with its runtime.
            Some(Entry::Asked(pending)) if pending.has_changed().is_ok() => {
                return Found::Asked(pending.clone());
            }
            _ => {}
        }
        if !entries.contains_key(name) && entries.len() >= MAX_ENTRIES && !make_room(&mut entries, now) {
            return Found::Full;
        }
        let (told, pending) = watch::channel(None);
        entries.insert(name.clone(), Entry::Asked(pending.clone()));
        Found::Missing(told, pending)
    }

    pub(super) fn store(&self, name: &HostName, outcome: Outcome, until: Instant) {
        self.lock().insert(name.clone(), Entry::Known { outcome, until });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostName, Entry>> {
        // Every change leaves the map whole, so a panic elsewhere while it was locked spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what is over, or else the outcome that will be over first. What is being asked stays: those who
/// wait for it would ask again.
fn make_room(entries: &mut HashMap<HostName, Entry>, now: Instant) -> bool {
    entries.retain(|_, entry| match entry {
        Entry::Known { until, .. } => *until > now,
        Entry::Asked(pending) => pending.has_changed().is_ok(),
    });
    if entries.len() < MAX_ENTRIES {
        return true;
    }
    let first = entries.iter().filter_map(|(name, entry)| match entry {
        Entry::Known { until, .. } => Some((*until, name)),
        Entry::Asked(_) => None,
    });
    let Some(first) = first.min_by_key(|(until, _)| *until).map(|(_, name)| name.clone()) else {
        return false;
    };
    entries.remove(&first).is_some()
}
