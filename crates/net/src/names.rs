//! What this sandbox has resolved: the names under which it learned each address.
//!
//! A connection that carries no name of its own (git over ssh, a database) is judged by these. Only what
//! was really given to the guest is in here, never what a name server said besides.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policy::HostName;
use tokio::time::Instant;

/// Addresses remembered; a guest that resolves more loses the oldest. Stops a guest from filling our
/// memory by resolving.
const MAX_ADDRESSES: usize = 4096;

/// Names of one address; more push out the oldest. A shared host has a few, a hostile zone any number.
const MAX_NAMES: usize = 32;

/// How long after its time to live an answer still counts: programs resolve once and connect for hours.
const KEPT: Duration = Duration::from_secs(60 * 60);

/// Addresses and their names, shared by everything that serves one sandbox.
#[derive(Debug, Clone, Default)]
pub struct Names(Arc<Mutex<HashMap<IpAddr, Vec<Known>>>>);

#[derive(Debug)]
struct Known {
    name: HostName,
    until: Instant,
}

impl Names {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The guest was told that `name` has these addresses, for `ttl`.
    pub fn record(&self, name: &HostName, addresses: &[IpAddr], ttl: Duration) {
        let now = Instant::now();
        let until = now + ttl + KEPT;
        let mut known = self.lock();
        for address in addresses {
            let address = address.to_canonical();
            if !known.contains_key(&address) && known.len() >= MAX_ADDRESSES {
                make_room(&mut known, now);
            }
            let names = known.entry(address).or_default();
            if let Some(there) = names.iter_mut().find(|known| known.name == *name) {
                there.until = there.until.max(until);
                continue;
            }
            if names.len() >= MAX_NAMES
                && let Some(oldest) = (0..names.len()).min_by_key(|&index| names[index].until)
            {
                names.swap_remove(oldest);
            }
            names.push(Known { name: name.clone(), until });
        }
    }

    /// The names under which this sandbox learned the address; none if it never did.
    pub fn of(&self, address: IpAddr) -> Vec<HostName> {
        let now = Instant::now();
        let known = self.lock();
        let names = known.get(&address.to_canonical()).map_or(&[][..], Vec::as_slice);
        names.iter().filter(|known| known.until > now).map(|known| known.name.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Vec<Known>>> {
        // Every change leaves the map whole, so a panic elsewhere while it was locked spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what is over, or else the address that will be over first.
fn make_room(known: &mut HashMap<IpAddr, Vec<Known>>, now: Instant) {
    let end = |names: &[Known]| names.iter().map(|known| known.until).max().unwrap_or(now);
    known.retain(|_, names| end(names) > now);
    if known.len() >= MAX_ADDRESSES
        && let Some(first) = known.iter().min_by_key(|(_, names)| end(names)).map(|(address, _)| *address)
    {
        known.remove(&first);
    }
}

#[cfg(test)]
mod tests;
