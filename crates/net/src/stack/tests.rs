//! The stack against a guest in the same process: an honest one with a TCP/IP of its own, and one that
//! sends whatever frames it likes.

mod cable;
pub(super) mod frames;
mod guest;
mod hostile;
mod limits;
mod packet;
/// The one of the tests of `sys`.
#[path = "../../../sys/tests/tap/mod.rs"]
mod tap;
mod tcp;
mod udp;

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::{DEFAULT_MTU, Dropped, Incoming, Link, Settings, Stack, Syn, start};
use cable::Cable;
use guest::Guest;

/// How long anything may take before the test gives up: a hang is a failure, slowness is not.
const HANG: Duration = Duration::from_secs(60);

/// The host's side of a test, with a runtime for its tasks.
struct Host {
    runtime: Runtime,
    stack: Stack,
    incoming: Option<Incoming>,
}

fn bed(mtu: u16) -> (Guest, Host) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    bed_on(Link::Stream(ours), Cable::stream(theirs), mtu)
}

/// The two ends of whatever link that is.
fn bed_on(link: Link, cable: Cable, mtu: u16) -> (Guest, Host) {
    let (stack, incoming) = start(link, Settings { mtu }).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    (Guest::new(cable, mtu), Host { runtime, stack, incoming: Some(incoming) })
}

impl Host {
    /// Handles every connection in a task of its own.
    fn serve<F: Future<Output = ()> + Send + 'static>(&mut self, handle: impl Fn(Syn) -> F + Send + 'static) {
        let mut tcp = self.incoming.take().unwrap().tcp;
        self.runtime.spawn(async move {
            while let Some(syn) = tcp.recv().await {
                tokio::spawn(handle(syn));
            }
        });
    }

    /// The next connection, taken by hand.
    fn syn(&mut self, guest: &mut Guest) -> Syn {
        let mut found = None;
        guest.until(|_| {
            found = self.incoming.as_mut().unwrap().tcp.try_recv().ok();
            found.is_some()
        });
        found.unwrap()
    }

    fn dropped(&self, why: Dropped) -> u64 {
        self.stack.dropped().find(|(reason, _)| *reason == why).unwrap().1
    }

    /// Waits until the stack has dropped that many frames.
    fn wait_dropped(&self, why: Dropped, count: u64) {
        let since = Instant::now();
        while self.dropped(why) < count {
            assert!(since.elapsed() < HANG, "{why}: {} of {count}", self.dropped(why));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
