//! UDP other than DNS: only in open mode, each conversation through a socket of its own on the host. What
//! the policy does not let through is dropped, and told of once in a while.

mod mapping;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use api::event::NetworkEvent;
use policy::{Admitted, Denial, HostName, Mode, Policy, Reason};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::own;
use crate::report::{self, Reporter};
use crate::stack::{Datagram, Replies};
use mapping::Mapping;

/// Conversations at once: each takes a descriptor of this process. With more, the one that was silent for
/// longest ends.
const MAPPINGS: usize = 256;
/// How long a conversation may be silent.
const IDLE: Duration = Duration::from_secs(60);
/// How long a refused destination is not told of again.
const TOLD: Duration = Duration::from_secs(60);
/// Refused destinations in that time after which no more are told of: a scan would fill the log.
const TELL: usize = 256;
/// DNS's port, which is answered elsewhere and never passes here.
const DNS: u16 = 53;

/// Who talks to whom: the guest's end and the other.
type Key = (SocketAddr, SocketAddr);

/// Carries the guest's datagrams until there are no more, or the policy's owner is gone. `names` gives the
/// names that this sandbox has resolved to an address.
pub async fn nat(
    datagrams: mpsc::Receiver<Datagram>,
    replies: Replies,
    policy: watch::Receiver<Policy>,
    names: impl Fn(IpAddr) -> Vec<HostName> + Send,
    reporter: Reporter,
) {
    let (mappings, told) = (HashMap::new(), HashMap::new());
    let nat = Nat { replies, policy, names, reporter, mappings, told, tasks: JoinSet::new(), numbers: 0 };
    nat.run(datagrams).await;
}

struct Nat<N> {
    replies: Replies,
    policy: watch::Receiver<Policy>,
    names: N,
    reporter: Reporter,
    mappings: HashMap<Key, Mapping>,
    /// When a refused destination was told of.
    told: HashMap<SocketAddr, Instant>,
    /// One for each mapping, which ends with its key and number.
    tasks: JoinSet<(Key, u64)>,
    numbers: u64,
}

impl<N: Fn(IpAddr) -> Vec<HostName> + Send> Nat<N> {
    async fn run(mut self, mut datagrams: mpsc::Receiver<Datagram>) {
        loop {
            tokio::select! {
                // First, so that nothing is sent that the new policy does not allow.
                biased;
                changed = self.policy.changed() => match changed {
                    Ok(()) => self.review(),
                    Err(_) => return,
                },
                Some(ended) = self.tasks.join_next() => {
                    if let Ok((key, number)) = ended
                        && let Entry::Occupied(entry) = self.mappings.entry(key)
                        // Another may have begun in its place.
                        && entry.get().number() == number
                    {
                        entry.remove();
                    }
                }
                datagram = datagrams.recv() => match datagram {
                    Some(datagram) => self.send(&datagram),
                    None => return,
                },
            }
        }
    }

    /// Sends a datagram of the guest's, if it may be sent. It is lost when it cannot be sent at once.
    fn send(&mut self, datagram: &Datagram) {
        if datagram.destination.port() == DNS {
            return;
        }
        let key = (datagram.source, datagram.destination);
        if !self.mappings.contains_key(&key) {
            let opened = match self.admit(datagram.destination) {
                Ok(admitted) => self.open(key, &admitted),
                Err(denial) => return self.tell(datagram.destination, &denial),
            };
            if let Err(error) = opened {
                tracing::debug!(%error, destination = %datagram.destination, "no socket for a datagram");
                return;
            }
        }
        if let Some(mapping) = self.mappings.get(&key) {
            mapping.send(&datagram.payload);
        }
    }

    fn admit(&self, destination: SocketAddr) -> Result<Admitted, Denial> {
        let policy = self.policy.borrow();
        if policy.mode() != Mode::Open {
            return Err(Denial::new(Reason::Udp, destination.ip(), destination.port()));
        }
        own::told_of(&policy, destination.ip()).address(destination, &(self.names)(destination.ip()))
    }

    fn open(&mut self, key: Key, admitted: &Admitted) -> std::io::Result<()> {
        if self.mappings.len() >= MAPPINGS
            && let Some(oldest) =
                self.mappings.iter().min_by_key(|(_, mapping)| mapping.last()).map(|(key, _)| *key)
        {
            self.mappings.remove(&oldest);
        }
        self.numbers += 1;
        let (mapping, task) = Mapping::open(key, self.numbers, admitted, self.replies.clone())?;
        let (reporter, number) = (self.reporter.clone(), self.numbers);
        self.mappings.insert(key, mapping);
        self.tasks.spawn(async move {
            reporter.report(task.run().await);
            (key, number)
        });
        Ok(())
    }

    /// Ends what the policy no longer lets through.
    fn review(&mut self) {
        let ended: Vec<Key> =
            self.mappings.keys().filter(|(_, to)| self.admit(*to).is_err()).copied().collect();
        for key in ended {
            self.mappings.remove(&key);
        }
        // It may be refused for another reason now.
        self.told.clear();
    }

    /// Tells of a refusal, once for a destination and not of too many.
    fn tell(&mut self, destination: SocketAddr, denial: &Denial) {
        let now = Instant::now();
        if self.told.len() >= TELL {
            self.told.retain(|_, told| now < *told + TOLD);
        }
        match self.told.get(&destination) {
            Some(told) if now < *told + TOLD => return,
            None if self.told.len() >= TELL => return,
            _ => self.told.insert(destination, now),
        };
        let mut event = event(destination);
        report::refused(&mut event, denial);
        self.reporter.report(event);
    }
}

/// An event about datagrams to that destination.
fn event(destination: SocketAddr) -> NetworkEvent {
    NetworkEvent {
        method: "UDP".to_owned(),
        url: format!("udp://{destination}"),
        host: destination.ip().to_string(),
        port: destination.port(),
        ..NetworkEvent::default()
    }
}

#[cfg(test)]
mod tests;
