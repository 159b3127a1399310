//! A short command in a sandbox that runs already: from a new process, and in an open session.

use std::time::Duration;

use anyhow::Result;
use harness::Matchlock;

use super::measure::{Pair, in_turns, medians};
use super::raw::Raw;
use super::report::{Report, Row};
use super::rpc::Session;
use super::ssh::Ssh;

const ROUNDS: usize = 21;

/// Echoes that are one measurement: one alone is little more than the clock's own noise.
const ECHOES: u32 = 20;

/// Programs that the shell in the guest starts for one measurement.
const FORKS: u32 = 50;

pub(crate) fn measure(matchlock: &Matchlock, id: &str, raw: &mut Raw, report: &mut Report) -> Result<()> {
    let ssh = Ssh::start()?;
    let ours = || Ok(matchlock.run(&["exec", id, "true"]).success().duration);
    let pair = in_turns(ROUNDS, ours, || Ok(ssh.run_true()))?;
    report.add(Row::times(
        "`matchlock exec ID true` from a new process",
        "`ssh localhost true`",
        &pair,
        "≤ 0.5×",
    ));

    let mut session = Session::open(matchlock, id)?;
    let mut echoing = Session::open(matchlock, id)?;
    let mut forking = Session::open(matchlock, id)?;
    let cat = echoing.start_cat()?;
    let [exec, raw_echo, echo, fork] = medians(
        ROUNDS,
        [
            &mut || session.exec(&["/bin/true"]),
            &mut || raw.echo(ECHOES),
            &mut || (0..ECHOES).map(|_| echoing.echo(cat)).sum::<Result<Duration>>().map(|sum| sum / ECHOES),
            &mut || fork_in_guest(&mut forking),
        ],
    )?;
    let beside = |ours, theirs| Pair { ours, theirs, rounds: ROUNDS };
    let what = "`exec` of `/bin/true` in an open RPC session";
    report.add(Row::times(what, "echo of one byte over the raw channel", &beside(exec, raw_echo), "≤ 2×"));
    report.add(Row::times(what, "a shell in the same guest starts `/bin/true`", &beside(exec, fork), "–"));
    report.add(Row::times(
        "echo of one byte by a `cat` that runs, over RPC",
        "echo of one byte over the raw channel",
        &beside(echo, raw_echo),
        "≤ 2×",
    ));
    Ok(())
}

/// What one more program costs a shell in the guest.
fn fork_in_guest(session: &mut Session) -> Result<Duration> {
    let mut run = |count: u32| {
        let script = format!("i=0; while [ $i -lt {count} ]; do /bin/true; i=$((i+1)); done");
        session.exec(&["/bin/sh", "-c", &script])
    };
    let without = run(0)?;
    Ok(run(FORKS)?.saturating_sub(without) / FORKS)
}
