//! How fast and how large we are, beside what others do with the same input in the same run.
//!
//! Machines are shared and noisy: what counts is a ratio of medians, ours and theirs taken in
//! turns. Nothing here passes or fails; the targets are printed beside the figures.

mod bare;
mod crowd;
mod exec;
mod flows;
mod forward;
mod https;
mod import;
mod kvm;
mod measure;
mod peer;
mod raw;
mod report;
mod rpc;
mod ssh;
mod start;
mod streams;
mod throughput;

use anyhow::{Result, bail};
use clap::ValueEnum as _;
use harness::cache::BUSYBOX;
use harness::{Matchlock, Site};

use raw::Raw;
use report::Report;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// A cold start.
    Start,
    /// Importing an image.
    Import,
    /// Commands in a sandbox that runs.
    Exec,
    /// A command's output and input.
    Throughput,
    /// Published ports.
    Forward,
    /// TCP through the sandbox's network.
    Streams,
    /// HTTPS through interception.
    Https,
    /// Many connections at once.
    Flows,
    /// Sandboxes that do nothing.
    Idle,
    /// Both VMMs where KVM works.
    Kvm,
}

/// Measures and prints it; everything unless it is told what, and then also writes
/// `docs/benchmarks.md`.
pub(crate) fn run(only: &[Part]) -> Result<()> {
    if std::env::var_os("MATCHLOCK_BIN").is_none() {
        bail!("MATCHLOCK_BIN is not set: run `make bench`, which builds what is to be measured");
    }
    let parts = if only.is_empty() { Part::value_variants() } else { only };
    let matchlock = Matchlock::new();
    let mut report = Report::new(&matchlock);
    for part in parts {
        eprintln!("bench: {}", format!("{part:?}").to_lowercase());
        match part {
            Part::Start => start::measure(&matchlock, &mut report)?,
            Part::Import => import::measure(&mut report)?,
            Part::Exec => beside_raw(&matchlock, &mut report, exec::measure)?,
            Part::Throughput => beside_raw(&matchlock, &mut report, throughput::measure)?,
            Part::Forward => forward::measure(&matchlock, &mut Raw::boot(&matchlock)?, &mut report)?,
            Part::Streams => streams::measure(&Site::start(), &mut report)?,
            Part::Https => https::measure(&Site::start(), &mut report)?,
            Part::Flows => flows::measure(&Site::start(), &mut report)?,
            Part::Idle => crowd::measure(&matchlock, &mut report)?,
            Part::Kvm => kvm::measure(&mut report)?,
        }
    }
    matchlock.assert_nothing_left();
    report.print();
    if only.is_empty() { report.write() } else { Ok(()) }
}

/// Measures a sandbox that runs beside the raw channel.
fn beside_raw(
    matchlock: &Matchlock,
    report: &mut Report,
    measure: fn(&Matchlock, &str, &mut Raw, &mut Report) -> Result<()>,
) -> Result<()> {
    let id = matchlock.detached(&["--image", BUSYBOX, "--", "sleep", "1000"]);
    measure(matchlock, &id, &mut Raw::boot(matchlock)?, report)?;
    let _ = matchlock.run(&["kill", &id]).success();
    let _ = matchlock.run(&["rm", &id]).success();
    Ok(())
}
