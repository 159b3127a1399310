//! Who speaks first on a connection, and what.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, sleep_until};

use crate::sniff::{MAX_LINE, Protocol, classify};

/// How long the rest of a first line may take. A guest that sends half of one cannot hold its
/// connection undecided.
const REST: Duration = Duration::from_secs(3);

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
        let over = tokio::select! {
            biased;
            read = more(guest, &mut said, space) => match read {
                Ok(0) => true,
                Ok(_) => false,
                Err(_) => return First::Over,
            },
            read = more(server, &mut greeting, GREETING) => match read {
                Ok(0) | Err(_) => return First::Over,
                Ok(_) => return First::Server { guest: said, server: greeting },
            },
            () = sleep_until(until) => true,
        };
        match classify(&said, over) {
            Some(protocol) => return First::Guest(protocol, said),
            // It only listens, and the server is still to speak.
            None if over && until > Instant::now() => return First::Guest(Protocol::Other, said),
            None if over => return First::Over,
            None => until = until.min(Instant::now() + REST),
        }
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
