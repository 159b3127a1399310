//! How fast a command's output and input go, beside the raw channel.

use std::cell::RefCell;
use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use harness::Matchlock;
use harness::cache::BUSYBOX;

use super::measure::{Pair, medians};
use super::raw::{BLOCK, Raw, drain, pour};
use super::report::{Report, Row};

const ROUNDS: usize = 10;

/// Blocks that go in one measurement.
const BLOCKS: u64 = 128;

const TARGET: &str = "≥ 0.8×";

pub(crate) fn measure(matchlock: &Matchlock, id: &str, raw: &mut Raw, report: &mut Report) -> Result<()> {
    let run = ["run", "-i", "--image", BUSYBOX, "--"];
    let exec = ["exec", "-i", id, "--"];
    // Two ways use it, one after the other.
    let raw = RefCell::new(raw);
    let [of_run, of_exec, direct, piped] = medians(
        ROUNDS,
        [
            &mut || output(matchlock, &run),
            &mut || output(matchlock, &exec),
            &mut || raw.borrow_mut().out(BLOCKS),
            &mut || raw.borrow_mut().out_of_pipe(BLOCKS),
        ],
    )?;
    let [into_run, into_exec, into_raw] = medians(
        ROUNDS,
        [&mut || input(matchlock, &run), &mut || input(matchlock, &exec), &mut || {
            raw.borrow_mut().take(BLOCKS)
        }],
    )?;
    let mut row = |what: &str, against: &str, ours, theirs, target| {
        let pair = Pair { ours, theirs, rounds: ROUNDS };
        report.add(Row::rates(what, against, BLOCKS * BLOCK, &pair, target));
    };
    row("standard output of `run`", "raw virtio-serial", of_run, direct, TARGET);
    row("standard output of `run`", "raw virtio-serial, from a pipe in the guest", of_run, piped, "–");
    row("standard output of `exec`, in base64 over RPC", "raw virtio-serial", of_exec, direct, TARGET);
    row("standard input of `run -i`", "raw virtio-serial", into_run, into_raw, TARGET);
    row("standard input of `exec -i`, in base64 over RPC", "raw virtio-serial", into_exec, into_raw, TARGET);
    Ok(())
}

/// A command that writes, from its first byte to its last.
fn output(matchlock: &Matchlock, prefix: &[&str]) -> Result<Duration> {
    let count = format!("count={BLOCKS}");
    let mut command = matchlock.command(&[prefix, &["dd", "if=/dev/zero", "bs=256k", &count]].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (time, bytes) = drain(&mut child.stdout.take().context("it is a pipe")?)?;
    if !child.wait()?.success() || bytes != BLOCKS * BLOCK {
        bail!("{command:?} gave {bytes} bytes");
    }
    Ok(time)
}

/// A command that reads, from the moment it runs to its end.
fn input(matchlock: &Matchlock, prefix: &[&str]) -> Result<Duration> {
    let script = "echo; exec dd of=/dev/null bs=256k 2>/dev/null";
    let mut command = matchlock.command(&[prefix, &["sh", "-c", script]].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    child.stdout.as_mut().context("it is a pipe")?.read_exact(&mut [0])?;
    let start = Instant::now();
    pour(&mut child.stdin.take().context("it is a pipe")?, BLOCKS)?;
    if !child.wait()?.success() {
        bail!("{command:?} failed");
    }
    Ok(start.elapsed())
}
