//! The guest's only name server. It answers on port 53 of every address, so that no other can be reached.
//!
//! In a sealed network a name that is not allowed does not exist, and no name server hears of it: a query
//! would carry whatever the guest put into the name. What may be asked is decided in `policy`, which of it
//! is asked in [`decision`].

mod answer;
mod decision;
mod query;
mod tcp;
mod told;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::event::NetworkEvent;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use policy::{Denial, HostName, Mode, Policy};
use tokio::sync::{Semaphore, watch};

use crate::names::Names;
use crate::own;
use crate::report::{self, Reporter};
use crate::resolve::{ResolveError, Resolver};
use query::{Asked, Refused};
use told::{Ending, Told};

pub use decision::Decision;

/// Queries served at once; more are dropped, and the guest asks again. Stops a flood from taking all of
/// the resolver's look-ups and our memory.
const MAX_QUERIES: usize = 128;

/// What is done about a guest's bytes; `None` if they are no query that could be decided about.
pub fn decide(policy: &Policy, query: &[u8]) -> Option<Decision> {
    query::read(query).ok().map(|asked| decision::decide(policy, &asked))
}

/// Answers the guest's queries.
pub struct Service {
    policy: watch::Receiver<Policy>,
    resolver: Resolver,
    names: Names,
    reporter: Reporter,
    slots: Semaphore,
    told: Told,
}

impl Service {
    /// What is given to the guest is recorded in `names`.
    pub fn new(
        policy: watch::Receiver<Policy>,
        resolver: Resolver,
        names: Names,
        reporter: Reporter,
    ) -> Self {
        Self { policy, resolver, names, reporter, slots: Semaphore::new(MAX_QUERIES), told: Told::default() }
    }

    /// The answer to one query; `None` if there is none to be given.
    pub async fn answer(&self, query: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let _slot = self.slots.try_acquire().ok()?;
        let asked = match query::read(query) {
            Ok(asked) => asked,
            Err(Refused::Silently) => return None,
            Err(Refused::With(frame, code)) => return answer::refused(&frame, code, over_tcp),
        };
        let begin = Instant::now();
        let decision = decision::decide(&self.policy.borrow(), &asked);
        match decision {
            Decision::Answer(code) => answer::empty(&asked, code, over_tcp),
            Decision::Deny(code, denial) => {
                self.denied(Ending::Denied, &denial, begin);
                answer::empty(&asked, code, over_tcp)
            }
            Decision::Given(name, addresses) => {
                self.report(&name, Ending::Answered, None, begin);
                self.give(&asked, &name, &addresses, answer::MAX_TTL, over_tcp)
            }
            Decision::Resolve(name) => self.resolve(&asked, &name, begin, over_tcp).await,
            Decision::Forward(name) => match self.resolver.forward(&asked.question).await {
                Ok(reply) => {
                    self.report(&name, Ending::Answered, None, begin);
                    answer::forwarded(&asked, reply, over_tcp)
                }
                Err(error) => self.failed(&asked, &name, &error, begin, over_tcp),
            },
        }
    }

    async fn resolve(
        &self,
        asked: &Asked,
        name: &HostName,
        begin: Instant,
        over_tcp: bool,
    ) -> Option<Vec<u8>> {
        let found = match self.resolver.look_up(name).await {
            Ok(found) => found,
            Err(error) => return self.failed(asked, name, &error, begin, over_tcp),
        };
        let policy = self.policy.borrow().clone();
        let (mut admitted, mut denial) = (Vec::new(), None);
        for address in found.addresses.iter() {
            match own::told_of(&policy, *address).answerable(name, *address) {
                Ok(()) => admitted.push(*address),
                Err(denied) => denial = Some(denied),
            }
        }
        match denial {
            Some(denial) if admitted.is_empty() => self.denied(Ending::Private, &denial, begin),
            _ => self.report(name, Ending::Answered, None, begin),
        }
        let ttl = found.until.saturating_duration_since(tokio::time::Instant::now());
        self.give(asked, name, &admitted, ttl, over_tcp)
    }

    /// Gives the guest those of the addresses that it asked for.
    fn give(
        &self,
        asked: &Asked,
        name: &HostName,
        all: &[IpAddr],
        ttl: Duration,
        over_tcp: bool,
    ) -> Option<Vec<u8>> {
        let six = asked.record_type() == RecordType::AAAA;
        let given: Vec<_> = all.iter().copied().filter(|address| address.is_ipv6() == six).collect();
        self.names.record(name, &given, ttl.min(answer::MAX_TTL));
        answer::addresses(asked, &given, ttl, over_tcp)
    }

    fn failed(
        &self,
        asked: &Asked,
        name: &HostName,
        error: &ResolveError,
        begin: Instant,
        over_tcp: bool,
    ) -> Option<Vec<u8>> {
        self.report(name, Ending::Failed, Some(error), begin);
        let code = match error {
            ResolveError::NoSuchName => ResponseCode::NXDomain,
            ResolveError::NoAddress => ResponseCode::NoError,
            _ => ResponseCode::ServFail,
        };
        answer::empty(asked, code, over_tcp)
    }

    /// Tells of a look-up that was not refused, where somebody wants to know what the guest does.
    fn report(&self, name: &HostName, ending: Ending, error: Option<&ResolveError>, begin: Instant) {
        if self.policy.borrow().mode() != Mode::Open && self.told.is_new(name.as_str(), ending) {
            self.reporter.report(NetworkEvent {
                error: error.map(ToString::to_string),
                ..event(name.as_str(), begin)
            });
        }
    }

    fn denied(&self, ending: Ending, denial: &Denial, begin: Instant) {
        if !self.told.is_new(&denial.host, ending) {
            return;
        }
        let mut event = event(&denial.host, begin);
        report::refused(&mut event, denial);
        self.reporter.report(event);
    }
}

fn event(name: &str, begin: Instant) -> NetworkEvent {
    NetworkEvent {
        method: "DNS".to_owned(),
        url: format!("dns:{name}"),
        host: name.to_owned(),
        duration_ms: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
        ..NetworkEvent::default()
    }
}

#[cfg(test)]
mod tests;
