//! Names to addresses, through the host's own resolver or the name servers that the user gave.
//!
//! Who may ask for which name, and which of the addresses may be used, is not decided here. What is asked
//! is bounded whatever the guest does: look-ups at once, their time, and what is remembered of them.

mod cache;
mod exchange;
mod reply;
mod system;
#[cfg(test)]
pub(crate) mod test_server;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use api::{Explain, Kind};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::Name;
use policy::HostName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use cache::{Cache, Found};
use reply::Said;

/// Look-ups at once. Each of the system's holds a thread, for as long as the host's resolver likes; each of
/// ours two sockets. More wait for their turn.
const MAX_SYSTEM: usize = 32;
const MAX_SERVERS: usize = 128;

/// How long a look-up waits for its turn.
const TURN: Duration = Duration::from_secs(5);

/// How long the system's resolver may take, until we stop to listen.
const SYSTEM_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer of the system's resolver counts, which tells no time.
const SYSTEM_TTL: Duration = Duration::from_secs(30);

/// An answer counts for as long as it says, within these: a short one would have us ask without end, a long
/// one would outlive what is true.
const MIN_TTL: Duration = Duration::from_secs(5);
const MAX_TTL: Duration = Duration::from_secs(60 * 60);

/// How long it counts that there is no answer.
const NEGATIVE_TTL: Duration = Duration::from_secs(5);

/// How much longer the other family's answer may take when there are addresses of one: servers that never
/// answer one of the two questions exist.
const GRACE: Duration = Duration::from_secs(1);

/// Where names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// As the host's own programs do.
    System,
    /// By these name servers, the first of them that answers.
    Servers(Vec<SocketAddr>),
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name does not exist.
    #[error("there is no such name")]
    NoSuchName,
    /// The name exists, but not as a host's.
    #[error("the name has no address")]
    NoAddress,
    /// Nobody answered.
    #[error("no name server answered in time")]
    TimedOut,
    /// A name server said that it cannot or will not tell.
    #[error("the name server refused: {0}")]
    Server(&'static str),
    /// No name server could be talked to.
    #[error("no name server could be reached: {0}")]
    Unreachable(io::ErrorKind),
    /// What came back is no reply to what was asked.
    #[error("the name server's reply is malformed")]
    Malformed,
    /// There is no name server to be asked.
    #[error("no name server is configured")]
    NoServer,
    /// The host's resolver failed.
    #[error("the system's resolver: {0}")]
    System(String),
    /// More is being asked than is served at once.
    #[error("too many look-ups at once")]
    Busy,
}

impl Explain for ResolveError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoSuchName | Self::NoAddress => Kind::NotFound,
            Self::TimedOut => Kind::Timeout,
            Self::Server(_) | Self::Unreachable(_) | Self::System(_) => Kind::Unavailable,
            Self::Malformed => Kind::Corrupt,
            Self::NoServer => Kind::InvalidInput,
            Self::Busy => Kind::LimitExceeded,
        }
    }
}

/// The addresses of a name; none if it has only other records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) addresses: Arc<[IpAddr]>,
    /// Until when they count.
    pub(crate) until: Instant,
}

type Outcome = Result<Addresses, ResolveError>;

/// Resolves names, and remembers them.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    upstream: Upstream,
    cache: Cache,
    slots: Arc<Semaphore>,
}

impl Resolver {
    /// A resolver that remembers nothing yet.
    pub fn new(upstream: Upstream) -> Self {
        let slots = match upstream {
            Upstream::System => MAX_SYSTEM,
            Upstream::Servers(_) => MAX_SERVERS,
        };
        Self(Arc::new(Inner { upstream, cache: Cache::default(), slots: Arc::new(Semaphore::new(slots)) }))
    }

    /// The host's addresses, at least one, those of IPv4 first if we asked ourselves.
    pub async fn addresses(&self, name: &HostName) -> Result<Vec<IpAddr>, ResolveError> {
        let found = self.look_up(name).await?;
        if found.addresses.is_empty() { Err(ResolveError::NoAddress) } else { Ok(found.addresses.to_vec()) }
    }

    /// The host's addresses, and for how long they count.
    pub(crate) async fn look_up(&self, name: &HostName) -> Outcome {
        let mut pending = match self.0.cache.find(name) {
            Found::Known(outcome) => return outcome,
            Found::Asked(pending) => pending,
            Found::Full => return Err(ResolveError::Busy),
            Found::Missing(told, pending) => {
                let (inner, name) = (Arc::clone(&self.0), name.clone());
                // A task of its own: whoever asked first may go away, and others wait for the answer.
                tokio::spawn(async move {
                    let (outcome, until) = inner.ask(&name).await;
                    inner.cache.store(&name, outcome.clone(), until);
                    told.send_replace(Some(outcome));
                });
                pending
            }
        };
        let told = pending.wait_for(Option::is_some).await.map_err(|_| ResolveError::TimedOut)?;
        told.clone().unwrap_or(Err(ResolveError::TimedOut))
    }

    /// Asks a name server any question, and hands on what it says, checked only to be a reply to it.
    pub(crate) async fn forward(&self, question: &Query) -> Result<Message, ResolveError> {
        let _slot = self.0.turn().await?;
        match &self.0.upstream {
            Upstream::System => exchange::ask(&system::servers().await, question).await,
            Upstream::Servers(servers) => exchange::ask(servers, question).await,
        }
    }
}

impl Inner {
    /// Asks, and says how long the outcome counts.
    async fn ask(&self, name: &HostName) -> (Outcome, Instant) {
        let found = match &self.upstream {
            Upstream::System => self.ask_system(name).await,
            Upstream::Servers(servers) => self.ask_servers(servers, name).await,
        };
        let now = Instant::now();
        match found {
            Ok((addresses, _)) if addresses.is_empty() => {
                let until = now + NEGATIVE_TTL;
                (Ok(Addresses { addresses: Vec::new().into(), until }), until)
            }
            Ok((addresses, ttl)) => {
                let until = now + ttl.clamp(MIN_TTL, MAX_TTL);
                (Ok(Addresses { addresses: addresses.into(), until }), until)
            }
            // That we are busy is over at once.
            Err(ResolveError::Busy) => (Err(ResolveError::Busy), now),
            Err(error) => (Err(error), now + NEGATIVE_TTL),
        }
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, ResolveError> {
        let turn = timeout(TURN, Arc::clone(&self.slots).acquire_owned()).await;
        turn.map_err(|_| ResolveError::Busy)?.map_err(|_| ResolveError::Busy)
    }

    async fn ask_system(&self, name: &HostName) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
        let slot = self.turn().await?;
        let name = name.clone();
        let asked = tokio::task::spawn_blocking(move || {
            // Held by the thread, which goes on when we no longer listen.
            let _slot = slot;
            system::look_up(&name)
        });
        match timeout(SYSTEM_TIMEOUT, asked).await {
            Ok(Ok(found)) => Ok((found?, SYSTEM_TTL)),
            Ok(Err(_)) | Err(_) => Err(ResolveError::TimedOut),
        }
    }

    async fn ask_servers(
        &self,
        servers: &[SocketAddr],
        name: &HostName,
    ) -> Result<(Vec<IpAddr>, Duration), ResolveError> {
        let _slot = self.turn().await?;
        let name = wire_name(name)?;
        let ask = async |six| -> Result<(Vec<IpAddr>, Duration), ResolveError> {
            let question = reply::question(&name, six);
            match reply::addresses(&exchange::ask(servers, &question).await?, &question) {
                Said::Addresses { addresses, ttl } => Ok((addresses, ttl)),
                Said::NoSuchName => Err(ResolveError::NoSuchName),
                Said::Failed(code) => Err(ResolveError::Server(code.to_str())),
            }
        };
        let (mut four, mut six) = (pin!(ask(false)), pin!(ask(true)));
        let (four, six) = tokio::select! {
            four = &mut four => { let six = other(&four, six).await; (four, six) }
            six = &mut six => { let four = other(&six, four).await; (four, six) }
        };
        both(four, six)
    }
}

type Asked = Result<(Vec<IpAddr>, Duration), ResolveError>;

/// Waits for the other family's answer, not for long if there is something to go on with.
async fn other(first: &Asked, second: impl Future<Output = Asked>) -> Asked {
    match first {
        Ok((addresses, _)) if !addresses.is_empty() => {
            timeout(GRACE, second).await.unwrap_or(Err(ResolveError::TimedOut))
        }
        _ => second.await,
    }
}

/// One answer out of those of the two families.
fn both(four: Asked, six: Asked) -> Asked {
    match (four, six) {
        (Ok((four, a)), Ok((six, b))) if !four.is_empty() && !six.is_empty() => {
            Ok(([four, six].concat(), a.min(b)))
        }
        // Servers that deny the name when asked for the family that it does not have exist.
        (Ok(one), Ok(other)) => Ok(if one.0.is_empty() { other } else { one }),
        (Ok(one), Err(ResolveError::NoSuchName)) | (Err(ResolveError::NoSuchName), Ok(one))
            if !one.0.is_empty() =>
        {
            Ok(one)
        }
        // Half an answer serves, but not for long.
        (Ok((one, _)), Err(_)) | (Err(_), Ok((one, _))) if !one.is_empty() => Ok((one, MIN_TTL)),
        (Err(ResolveError::NoSuchName), _) | (_, Err(ResolveError::NoSuchName)) => {
            Err(ResolveError::NoSuchName)
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// The name as it is asked for.
pub(crate) fn wire_name(name: &HostName) -> Result<Name, ResolveError> {
    // With the final dot, which makes it absolute.
    Name::from_ascii(format!("{name}.")).map_err(|_| ResolveError::Malformed)
}

#[cfg(test)]
mod tests;
