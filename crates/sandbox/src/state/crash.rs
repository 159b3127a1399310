//! Where fault tests kill this program.
//!
//! With `MATCHLOCK_CRASH_AT_STEP=N` in its environment, a process dies by SIGKILL when it comes to
//! its N-th crash point, counted from 1 over all threads. There is one before and one after each
//! transaction that writes to the state database, its making and migrating included: what the
//! program does to the host lies between two of them.

use std::env;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// The variable that says at which point to die.
pub(super) const VARIABLE: &str = "MATCHLOCK_CRASH_AT_STEP";

/// A crash point.
pub(super) fn point() {
    static FATAL: OnceLock<Option<u64>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let Some(fatal) = *FATAL.get_or_init(|| env::var(VARIABLE).ok()?.parse().ok()) else { return };
    if PASSED.fetch_add(1, Ordering::Relaxed) + 1 == fatal {
        // Its own process may always be signalled; if not, the fault test notices that it lives.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}
