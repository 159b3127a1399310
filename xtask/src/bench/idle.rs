//! What a sandbox costs the host while nothing happens in it.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::Matchlock;
use harness::cache::BUSYBOX;
use harness::process::Signal;

use super::report::{Report, Row};

/// How long a sandbox settles before it counts as idle.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) fn measure(matchlock: &Matchlock, report: &mut Report) -> Result<()> {
    let running =
        matchlock.spawn(&["run", "--image", BUSYBOX, "--", "/bin/sh", "-c", "echo ready; exec sleep 1000"]);
    running.wait_for_stdout("ready");
    sleep(SETTLE);
    let pid = running.pid().as_raw_nonzero().to_string();
    report.add(Row::memory("memory of our process, idle sandbox", resident_kib(&pid)?, "≤ 20 MiB"));
    let mut vmm = 0;
    for child in children(&pid)? {
        vmm += resident_kib(&child)?;
    }
    report.add(Row::memory("memory of its VMM, the guest's own pages included", vmm, "–"));
    running.signal(Signal::TERM);
    let _ = running.wait();
    matchlock.assert_nothing_left();
    Ok(())
}

/// `VmRSS` of `/proc/PID/status`, KiB.
fn resident_kib(pid: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in its status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn children(pid: &str) -> Result<Vec<String>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let list = fs::read_to_string(thread?.path().join("children"))?;
        children.extend(list.split_whitespace().map(str::to_owned));
    }
    Ok(children)
}
