//! A cold start, from the command line to the exit code, beside the least that QEMU needs to boot
//! the same kernel and end again.

use std::time::Duration;

use anyhow::{Context, Result};
use harness::cache::BUSYBOX;
use harness::{Matchlock, Running};
use serde::Deserialize;

use super::bare;
use super::measure::{in_turns, median};
use super::report::{Report, Row};

const ROUNDS: usize = 15;
const LIMIT: Duration = Duration::from_secs(60);

/// One stage of `run --timings=json`.
#[derive(Deserialize)]
struct Stage {
    name: String,
    took_us: u64,
}

pub(crate) fn measure(matchlock: &Matchlock, report: &mut Report) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let initramfs = bare::initramfs(directory.path(), "")?;
    let kernel = bare::kernel(matchlock)?;
    let mut stages: Vec<(String, Vec<u64>)> = Vec::new();
    let ours = || {
        let output =
            matchlock.run(&["run", "--timings=json", "--image", BUSYBOX, "--", "/bin/true"]).success();
        let timings = output.stderr_text();
        let line = timings
            .lines()
            .find(|line| line.starts_with('['))
            .context("run --timings=json gave no timings")?;
        for stage in serde_json::from_str::<Vec<Stage>>(line)? {
            match stages.iter_mut().find(|(name, _)| *name == stage.name) {
                Some((_, times)) => times.push(stage.took_us),
                None => stages.push((stage.name, vec![stage.took_us])),
            }
        }
        Ok(output.duration)
    };
    let theirs = || {
        let mut qemu = bare::qemu(&kernel, &initramfs, "max", "rdinit=/busybox -- reboot -f");
        Ok(Running::start(&mut qemu, LIMIT).wait().success().duration)
    };
    let pair = in_turns(ROUNDS, ours, theirs)?;
    report.add(Row::times(
        "cold start: `matchlock run --image busybox -- /bin/true`",
        "bare QEMU, same kernel, to `reboot`",
        &pair,
        "≤ 1.25×, < 1 s under TCG",
    ));
    report.set_stages(stages.into_iter().map(|(name, times)| (name, median(times))).collect());
    Ok(())
}
