//! Copying between a guest and an upstream what nobody parses, both ways, until both have finished. Ends
//! at once when the policy no longer lets it, or when a secret's value comes by.

mod direction;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use policy::secret::LeakScanner;
use policy::{Denial, Policy};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::sleep;

use direction::{Broken, Direction};

/// A tunnel in which nothing has moved for this long ends: its guest may have forgotten it.
const IDLE: Duration = Duration::from_secs(2 * 60 * 60);

/// What a policy says of a tunnel.
pub(crate) type Check<'a> = dyn Fn(&Policy) -> Result<(), Denial> + Send + Sync + 'a;

/// On what terms a tunnel exists.
pub(crate) struct Terms<'a> {
    /// The policy, whatever it is at the time.
    pub(crate) policy: watch::Receiver<Policy>,
    /// Whether a policy lets it go on.
    pub(crate) allowed: Box<Check<'a>>,
    /// What must not come back: the values of the host's secrets. None if all is encrypted.
    pub(crate) scanners: Vec<LeakScanner>,
    /// What to say if that is found.
    pub(crate) leak: Denial,
}

/// What became of a tunnel.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Bytes from the guest that the upstream has got.
    pub(crate) sent: u64,
    /// Bytes from the upstream that the guest has got.
    pub(crate) received: u64,
    /// How it ended.
    pub(crate) end: End,
}

/// How a tunnel ends.
#[derive(Debug)]
pub(crate) enum End {
    /// Both sides have finished.
    Closed,
    /// Nothing moved for long, or the network ends.
    Left,
    /// One of the sides broke off.
    Broken(io::Error),
    /// It is no longer allowed.
    Denied(Denial),
}

/// Copies until the tunnel ends. The streams are to be dropped then; only [`End::Closed`] has shut them down.
pub(crate) async fn run<G, U>(guest: &mut G, upstream: &mut U, mut terms: Terms<'_>) -> Outcome
where
    G: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut both = Both { out: Direction::new(Vec::new()), back: Direction::new(terms.scanners) };
    let end = loop {
        let policy = terms.policy.borrow_and_update().clone();
        if let Err(denial) = (terms.allowed)(&policy) {
            break End::Denied(denial);
        }
        let before = both.moved();
        tokio::select! {
            copied = poll_fn(|cx| both.poll(cx, guest, upstream)) => break match copied {
                Ok(()) => End::Closed,
                Err(Broken::Io(error)) => End::Broken(error),
                Err(Broken::Leak) => End::Denied(terms.leak.clone()),
            },
            changed = terms.policy.changed() => if changed.is_err() {
                break End::Left;
            },
            () = sleep(IDLE) => if both.moved() == before {
                break End::Left;
            },
        }
    };
    let (sent, received) = both.moved();
    Outcome { sent, received, end }
}

struct Both {
    out: Direction,
    back: Direction,
}

impl Both {
    fn moved(&self) -> (u64, u64) {
        (self.out.moved(), self.back.moved())
    }

    fn poll<G, U>(
        &mut self,
        cx: &mut Context<'_>,
        guest: &mut G,
        upstream: &mut U,
    ) -> Poll<Result<(), Broken>>
    where
        G: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let out = self.out.poll(cx, Pin::new(guest), Pin::new(upstream))?;
        let back = self.back.poll(cx, Pin::new(upstream), Pin::new(guest))?;
        if out.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests;
