//! Who speaks first on a connection, and what.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, sleep_until};

use crate::sniff::{MAX_LINE, Protocol, classify};

/// How long the rest of a first line may take. A guest that sends half of one cannot hold its
/// connection undecided, and one whose protocol has no lines does not wait long.
const REST: Duration = Duration::from_secs(1);

/// How long both sides may be silent: clients connect before they know what to ask.
const SILENCE: Duration = Duration::from_secs(10 * 60);

/// Room for a read: what most clients say first.
const MORE: usize = 2048;

/// Bytes read from the server to know that it speaks.
const GREETING: usize = 4096;

/// What was said first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First {
    /// By the guest: what it speaks, and all that was read of it.
    Guest(Protocol, Vec<u8>),
    /// By the guest, but not enough to tell, and no more of it in time: what was read of it.
    Half(Vec<u8>),
    /// By the server, as no server of TLS or HTTP does: what was read of both.
    Server {
        /// What the guest has said in the meantime; not enough to tell.
        guest: Vec<u8>,
        /// What the server has said.
        server: Vec<u8>,
    },
    /// Nothing, and no more will be.
    Over,
}

/// Reads until it is known. Nothing of what is read is lost.
pub(super) async fn read<G, U>(guest: &mut G, server: &mut U) -> First
where
    G: AsyncRead + Unpin,
    U: AsyncRead + Unpin,
{
    let mut said = Vec::new();
    let mut greeting = Vec::new();
    let mut until = Instant::now() + SILENCE;
    loop {
        let space = MAX_LINE.saturating_sub(said.len());
        tokio::select! {
            biased;
            read = more(guest, &mut said, space) => match read {
                // Half a request asks for nothing. Maybe it only listens, and the server is still to speak.
                Ok(0) => return First::Guest(Protocol::Other, said),
                Ok(_) => {}
                Err(_) => return First::Over,
            },
            read = more(server, &mut greeting, GREETING) => match read {
                Ok(0) | Err(_) => return First::Over,
                Ok(_) => return First::Server { guest: said, server: greeting },
            },
            () = sleep_until(until) => return if said.is_empty() { First::Over } else { First::Half(said) },
        }
        if let Some(protocol) = classify(&said) {
            return First::Guest(protocol, said);
        }
        until = until.min(Instant::now() + REST);
    }
}

/// Reads once. Nothing is lost if it is given up before.
pub(super) async fn more<R: AsyncRead + Unpin>(
    from: &mut R,
    into: &mut Vec<u8>,
    most: usize,
) -> io::Result<usize> {
    into.reserve(most.min(MORE));
    from.take(most as u64).read_buf(into).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn half_a_line_never_holds_a_flow() {
        let ((mut guest, mut ours), (mut server, _theirs)) = (duplex(64), duplex(64));
        guest.write_all(b"SSH-2.0-x y").await.unwrap();
        let begin = Instant::now();
        let first = read(&mut ours, &mut server).await;
        assert_eq!(first, First::Half(b"SSH-2.0-x y".to_vec()));
        assert_eq!(begin.elapsed(), REST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_comes_drop_by_drop_takes_no_longer() {
        let ((mut guest, mut ours), (mut server, _theirs)) = (duplex(64), duplex(64));
        let slow = tokio::spawn(async move {
            while guest.write_all(b"A").await.is_ok() {
                tokio::time::sleep(REST / 3).await;
            }
        });
        let begin = Instant::now();
        assert!(matches!(read(&mut ours, &mut server).await, First::Half(_)));
        assert!(begin.elapsed() <= REST);
        slow.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn silence_of_both_sides_ends() {
        let ((_guest, mut ours), (mut server, _theirs)) = (duplex(64), duplex(64));
        assert_eq!(read(&mut ours, &mut server).await, First::Over);
    }

    #[tokio::test]
    async fn a_guest_that_only_listens_is_let_listen() {
        let ((mut guest, mut ours), (mut server, _theirs)) = (duplex(64), duplex(64));
        guest.shutdown().await.unwrap();
        assert_eq!(read(&mut ours, &mut server).await, First::Guest(Protocol::Other, Vec::new()));
    }

    #[tokio::test]
    async fn half_a_line_that_ends_is_no_request() {
        let ((mut guest, mut ours), (mut server, _theirs)) = (duplex(64), duplex(64));
        guest.write_all(b"all of it").await.unwrap();
        guest.shutdown().await.unwrap();
        let expected = First::Guest(Protocol::Other, b"all of it".to_vec());
        assert_eq!(read(&mut ours, &mut server).await, expected);
    }

    #[tokio::test]
    async fn a_server_that_has_gone_is_not_waited_for() {
        let ((_guest, mut ours), (mut server, theirs)) = (duplex(64), duplex(64));
        drop(theirs);
        assert_eq!(read(&mut ours, &mut server).await, First::Over);
    }

    #[tokio::test]
    async fn what_both_have_said_is_kept() {
        let ((mut guest, mut ours), (mut server, mut theirs)) = (duplex(64), duplex(64));
        guest.write_all(b"SSH").await.unwrap();
        theirs.write_all(b"SSH-2.0-y\r\n").await.unwrap();
        let expected = First::Server { guest: b"SSH".to_vec(), server: b"SSH-2.0-y\r\n".to_vec() };
        assert_eq!(read(&mut ours, &mut server).await, expected);
    }
}
