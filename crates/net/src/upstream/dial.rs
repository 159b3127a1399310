//! Connecting to the first of several addresses that answers (RFC 8305, in small).

use std::io;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use policy::Admitted;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::DialError;
use crate::resolve::ResolveError;

/// Most addresses that are tried: a name may have any number.
const MAX_ADDRESSES: usize = 8;

/// How long an address has the field to itself.
const STAGGER: Duration = Duration::from_millis(250);

/// After how long without a word we ask whether the other end still lives: a connection whose end was
/// lost must not stay for ever.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// A connection to the first that answers.
pub(super) async fn first(admitted: &[Admitted]) -> Result<TcpStream, DialError> {
    let mut waiting = interleaved(admitted).into_iter();
    let mut running = FuturesUnordered::new();
    let mut failed = None;
    loop {
        match waiting.next() {
            Some(next) => running.push(connect(next)),
            None if running.is_empty() => {
                return Err(failed.unwrap_or(DialError::Resolve(ResolveError::NoAddress)));
            }
            None => {}
        }
        let last = waiting.len() == 0;
        tokio::select! {
            Some(connected) = running.next() => match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(worse(failed, error)),
            },
            () = sleep(STAGGER), if !last => {}
        }
    }
}

async fn connect(admitted: Admitted) -> Result<TcpStream, DialError> {
    let stream = TcpStream::connect(admitted.address()).await.map_err(DialError::of_connect)?;
    ready(&stream).map_err(DialError::of_connect)?;
    Ok(stream)
}

fn ready(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))
}

/// That somebody is there and refuses says more than that there is no way for one family.
fn worse(before: Option<DialError>, now: DialError) -> DialError {
    match before {
        Some(DialError::Refused) => DialError::Refused,
        _ => now,
    }
}

/// The families by turns, that of the first in front: one of them may be dead.
fn interleaved(admitted: &[Admitted]) -> Vec<Admitted> {
    let Some(first) = admitted.first() else { return Vec::new() };
    let is_first_family = |admitted: &&Admitted| admitted.address().is_ipv4() == first.address().is_ipv4();
    let mut same = admitted.iter().filter(is_first_family);
    let mut other = admitted.iter().filter(|admitted| !is_first_family(admitted));
    let mut order = Vec::new();
    while order.len() < admitted.len().min(MAX_ADDRESSES) {
        order.extend(same.next().cloned());
        order.extend(other.next().cloned());
    }
    order.truncate(MAX_ADDRESSES);
    order
}
