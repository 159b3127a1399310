//! How fast and how large we are, beside what others do with the same input in the same run.
//!
//! Machines are shared and noisy: what counts is a ratio of medians, ours and theirs taken in
//! turns. Nothing here passes or fails; the targets are printed beside the figures.

mod idle;
mod import;
mod measure;
mod report;
mod start;

use anyhow::{Result, bail};
use harness::Matchlock;

use report::Report;

/// Measures everything, prints it, and writes `docs/benchmarks.md`.
pub(crate) fn run() -> Result<()> {
    if std::env::var_os("MATCHLOCK_BIN").is_none() {
        bail!("MATCHLOCK_BIN is not set: run `make bench`, which builds what is to be measured");
    }
    let matchlock = Matchlock::new();
    let mut report = Report::new(&matchlock);
    eprintln!("bench: cold start");
    start::measure(&matchlock, &mut report)?;
    eprintln!("bench: import");
    import::measure(&mut report)?;
    eprintln!("bench: idle sandbox");
    idle::measure(&matchlock, &mut report)?;
    report.publish()
}
