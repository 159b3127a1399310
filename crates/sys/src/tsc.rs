//! The rate of the host's time-stamp counter, measured.
//!
//! A guest under emulation reads the host's counter but has no way to learn its rate: calibrating
//! against an emulated timer fails at random on a busy host. So the rate is given to it.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Two readings closer together than this are not accurate enough: 5 ms and readings that are
/// 100 ns apart give 20 parts per million, what a quartz has anyway.
const LEAST: Duration = Duration::from_millis(5);

static FIRST: OnceLock<Reading> = OnceLock::new();

#[derive(Debug, Clone, Copy)]
struct Reading {
    ticks: u64,
    time: Duration,
}

impl Reading {
    fn now() -> Self {
        let clock = || {
            let time = clock_gettime(ClockId::MonotonicRaw);
            Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
        };
        // The best of a few: one may be interrupted between its two clocks.
        let reading = || {
            let before = clock();
            let ticks = ticks();
            (clock() - before, Self { ticks, time: before })
        };
        let best = (0..4).map(|_| reading()).min_by_key(|(width, _)| *width);
        best.expect("there are four").1
    }
}

/// Takes the first of the two readings, if none was taken before. Called early, it makes
/// [`khz`] cost nothing.
pub fn start() {
    FIRST.get_or_init(Reading::now);
}

/// The counter's rate in kHz; sleeps for what is missing of 5 ms since [`start`].
#[must_use]
pub fn khz() -> u64 {
    let first = *FIRST.get_or_init(Reading::now);
    let mut second = Reading::now();
    if let Some(missing) = LEAST.checked_sub(second.time - first.time) {
        std::thread::sleep(missing);
        second = Reading::now();
    }
    let ticks = u128::from(second.ticks - first.ticks) * 1_000_000;
    u64::try_from(ticks / (second.time - first.time).as_nanos()).unwrap_or_default()
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 has the counter.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_plausible_and_stable() {
        start();
        let rate = khz();
        assert!((400_000..8_000_000).contains(&rate), "{rate} kHz");
        std::thread::sleep(Duration::from_millis(50));
        assert!(khz().abs_diff(rate) < rate / 1000, "{rate} kHz, then {} kHz", khz());
    }
}
