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
                // That somebody is there and refuses says more than that there is no way for one family.
                Err(_) if matches!(failed, Some(DialError::Refused)) => {}
                Err(error) => failed = Some(error),
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use api::network::NetworkSpec;
    use policy::Policy;
    use policy::host::Host;

    use super::*;

    fn order(addresses: &[&str]) -> Vec<IpAddr> {
        let policy = Policy::compile(&NetworkSpec::default(), &[], Default::default()).unwrap();
        let permit = policy.host(&Host::parse("a.example").unwrap(), 443).unwrap();
        let admitted: Vec<_> = addresses
            .iter()
            .map(|address| policy.admit(&permit, address.parse().unwrap()).unwrap())
            .collect();
        interleaved(&admitted).iter().map(|admitted| admitted.address().ip()).collect()
    }

    fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_many_addresses_are_not_all_tried() {
        assert!(order(&[]).is_empty());
        assert_eq!(
            order(&["1.1.1.1", "1.1.1.2", "1.1.1.3", "2606:4700::1", "2606:4700::2"]),
            parsed(&["1.1.1.1", "2606:4700::1", "1.1.1.2", "2606:4700::2", "1.1.1.3"])
        );
        let many: Vec<String> = (1..=100).map(|number| format!("1.1.1.{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(order(&many).len(), MAX_ADDRESSES);
    }
}
