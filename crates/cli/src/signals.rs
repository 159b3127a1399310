//! Signals that ask us to stop, and the runtime in which they are waited for.

use std::io;
use std::time::Duration;

use image::store::Cancel;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout};

use crate::failure::Failure;
use crate::output;

/// The signals that end a program, caught for as long as this lives.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
    /// When the last came.
    last: Option<Instant>,
}

impl Signals {
    /// Starts catching, and loses no signal if this is the only thread.
    fn catch() -> io::Result<Self> {
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        let (hangup, quit) = (SignalKind::hangup(), SignalKind::quit());
        // A runtime that runs would take a signal out of tokio's pipe before anybody listens to it. This
        // one never does, and the next finds what is in there.
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let _context = runtime.enter();
        // Nor can tokio's handler (of signal-hook-registry) tell anybody of a signal that comes after the
        // handler is in place and before it is entered for whom that is.
        let caught = [interrupt, terminate, hangup, quit].map(|kind| kind.as_raw_value());
        sys::signal::while_blocked(&caught, || {
            Ok(Self {
                interrupt: signal(interrupt)?,
                terminate: signal(terminate)?,
                hangup: signal(hangup)?,
                quit: signal(quit)?,
                last: None,
            })
        })?
    }

    /// Waits for the next one and gives its number.
    pub(crate) async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.quit.recv() => SignalKind::quit(),
        };
        self.last = Some(Instant::now());
        kind.as_raw_value()
    }
}

/// Waits for the next signal, for ever if none are caught.
pub(crate) async fn next(signals: Option<&mut Signals>) -> i32 {
    match signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    }
}

/// How long signals say the same: those of a terminal that is closed come twice, by its shell and by the kernel, and
/// some who start programs pass Ctrl-C on that the terminal has sent already.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Waits until somebody who has asked for the end of something asks for it again. The end of a terminal is
/// not more than that.
pub(crate) async fn insistence(signals: &mut Signals) {
    loop {
        let before = signals.last;
        let number = signals.next().await;
        if number == SignalKind::hangup().as_raw_value() {
            continue;
        }
        match before {
            Some(before) if before.elapsed() >= SAME_WISH => return,
            Some(_) => {}
            None => {
                output::say("matchlock: the sandbox is ending; once more, and its guest is not waited for");
            }
        }
    }
}

/// How far a failure may be ahead of the signal behind it: Ctrl-C also ends whoever feeds us through a
/// pipe, and whom we have started, and that can be seen before the signal is.
const SIGNAL_DELAY: Duration = Duration::from_millis(100);

/// Runs a future to its end, or until a signal asks us to stop; dropping it must clean up.
pub(crate) fn interruptible<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    caught(async |signals| {
        let outcome = tokio::select! {
            outcome = work => outcome,
            _ = signals.next() => return Err(Failure::interrupted()),
        };
        match outcome {
            Err(_) if one_follows(signals).await => Err(Failure::interrupted()),
            outcome => outcome,
        }
    })
}

/// Whether a signal is behind a failure that has just been seen.
pub(crate) async fn one_follows(signals: &mut Signals) -> bool {
    timeout(SIGNAL_DELAY, signals.next()).await.is_ok()
}

/// Runs work to its end that sees to signals itself. Whoever calls this has not started a thread, so
/// that no signal is lost.
pub(crate) fn caught<T>(work: impl AsyncFnOnce(&mut Signals) -> Result<T, Failure>) -> Result<T, Failure> {
    let mut signals = Signals::catch().map_err(|error| Failure::io("cannot catch signals", error))?;
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::io("cannot start", error))?;
    let outcome = runtime.block_on(work(&mut signals));
    // Threads that convert a layer notice soon by themselves; one that reads standard input never.
    runtime.shutdown_background();
    outcome
}

/// Does long work on files on a thread of its own, and asks it to stop when dropped.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce(&Cancel) -> T + Send + 'static) -> T {
    let guard = CancelOnDrop(Cancel::default());
    let cancel = guard.0.clone();
    tokio::task::spawn_blocking(move || work(&cancel)).await.expect("the work does not panic")
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[test]
    fn a_failure_ahead_of_its_signal_is_an_interruption() {
        let fails = |signal: Option<Signal>| {
            interruptible::<()>(async move {
                if let Some(signal) = signal {
                    kill_process(getpid(), signal).unwrap();
                }
                Err(Failure::usage("the input has ended early"))
            })
            .unwrap_err()
        };
        assert!(fails(Some(Signal::INT)).is_interruption());
        assert!(!fails(None).is_interruption());
    }
}
