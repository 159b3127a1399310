//! Many sandboxes that do nothing: what they take of the host's memory and CPUs, and what it takes to
//! list them. And the least that any command takes.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::cache::BUSYBOX;
use harness::process::Pid;
use harness::{Matchlock, Running};

use super::measure::{in_turns, median};
use super::report::{Report, Row};

/// Sandboxes at once.
const CROWD: usize = 20;

/// How long they settle before they count as idle, and how long they are watched.
const SETTLE: Duration = Duration::from_secs(5);
const WATCH: Duration = Duration::from_secs(20);

const ROUNDS: usize = 31;
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn measure(matchlock: &Matchlock, report: &mut Report) -> Result<()> {
    let nothing = || {
        let mut command = Command::new("/bin/true");
        Ok(Running::start(command.stdin(Stdio::null()), LIMIT).wait().success().duration)
    };
    let ours = || Ok(matchlock.run(&["--version"]).success().duration);
    let pair = in_turns(ROUNDS, ours, nothing)?;
    report.add(Row::times("`matchlock --version`", "`/bin/true`", &pair, "≤ 5 ms more"));

    let before = available_kib()?;
    let command = ["--image", BUSYBOX, "--", "sleep", "1000"];
    let crowd: Vec<String> = (0..CROWD).map(|_| matchlock.detached(&command)).collect();
    sleep(SETTLE);
    let owners: Vec<Pid> = crowd.iter().map(|id| matchlock.owner(id)).collect();
    let vmms: Vec<Pid> = crowd.iter().map(|id| matchlock.vmm(id)).collect();
    let memory = before.saturating_sub(available_kib()?);
    let ticks = (ticks(&owners)?, ticks(&vmms)?);
    sleep(WATCH);
    let ticks = (self::ticks(&owners)? - ticks.0, self::ticks(&vmms)? - ticks.1);

    let each = |what| format!("{what}, each of {CROWD} idle sandboxes (median)");
    report.add(Row::memory(
        &each("memory of our process, shared pages divided"),
        median(shares(&owners)?),
        "≤ 20 MiB",
    ));
    report.add(Row::memory(
        &each("memory of its VMM, the guest's own included"),
        median(shares(&vmms)?),
        "–",
    ));
    let what = format!("`MemAvailable` that {CROWD} idle sandboxes take, for each");
    report.add(Row::memory(&what, memory / CROWD as u64, "–"));
    for (who, ticks) in [("our processes", ticks.0), ("their VMMs", ticks.1)] {
        let what = format!("CPU time of {who}, {CROWD} idle sandboxes together, over {} s", WATCH.as_secs());
        report.add(Row::alone(&what, percent(ticks), "–"));
    }

    let list = || Ok(matchlock.run(&["list"]).success().duration);
    let pair = in_turns(ROUNDS, list, nothing)?;
    report.add(Row::times(&format!("`matchlock list` with {CROWD} sandboxes"), "`/bin/true`", &pair, "–"));
    let _ = matchlock.run(&["kill", "--all"]).success();
    let _ = matchlock.run(&["rm", "--stopped"]);
    Ok(())
}

/// `MemAvailable` of the host, KiB.
fn available_kib() -> Result<u64> {
    field(&fs::read_to_string("/proc/meminfo")?, "MemAvailable:")
}

/// What each process has of the host's memory, pages that it shares divided by who shares them (PSS),
/// KiB.
pub(super) fn shares(processes: &[Pid]) -> Result<Vec<u64>> {
    let share = |pid: &Pid| {
        field(&fs::read_to_string(format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero()))?, "Pss:")
    };
    processes.iter().map(share).collect()
}

/// The number of KiB behind `name` in a file of `/proc`.
fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.with_context(|| format!("no {name}"))?.trim().trim_end_matches(" kB").parse()?)
}

/// CPU time that the processes have used, in hundredths of a second (`USER_HZ`).
pub(super) fn ticks(processes: &[Pid]) -> Result<u64> {
    let mut sum = 0;
    for pid in processes {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
        sum += cpu_ticks(&stat).with_context(|| format!("no CPU times in {stat:?}"))?;
    }
    Ok(sum)
}

/// `utime` and `stime` of `proc_pid_stat(5)`, the 14th and the 15th field; the second is a name in
/// parentheses that may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Of one CPU.
fn percent(ticks: u64) -> String {
    let tenths = ticks * 10 / WATCH.as_secs();
    format!("{}.{} % of a CPU", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let stat = "7 (a) 9 (b) S 1 7 7 0 -1 4194560 108 0 0 0 30 12 0 0 20 0 1 0 5 1 2";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(field("Rss: 9 kB\nPss:   5 kB\n", "Pss:").unwrap(), 5);
        assert_eq!(percent(54), "2.7 % of a CPU");
    }
}
