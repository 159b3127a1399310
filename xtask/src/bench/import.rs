//! Debian with Python from an OCI layout to what a VM can mount, beside the tools that are used
//! for that elsewhere; and the most memory that it takes us.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use harness::cache::{self, DEBIAN_PYTHON};
use harness::{Matchlock, Running, tool};

use super::measure::{in_turns, median};
use super::report::{Report, Row};

const ROUNDS: usize = 5;
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let work = tempfile::tempdir()?;
    let layout = work.path().join("layout");
    let tar = cache::tar(DEBIAN_PYTHON);
    let megabytes = fs::metadata(&tar)?.len() / 1_000_000;
    let mut skopeo = Command::new(tool::find("skopeo"));
    skopeo.args(["--insecure-policy", "copy", "--quiet"]).arg(format!("tarball:{}", tar.display()));
    skopeo.arg(format!("oci:{}:latest", layout.display())).stdin(Stdio::null());
    let _ = Running::start(&mut skopeo, LIMIT).wait().success();

    let mut peaks = Vec::new();
    let ours = || {
        let (time, peak_kib) = import(&layout)?;
        peaks.push(peak_kib);
        Ok(time)
    };
    let pair = in_turns(ROUNDS, ours, || unpack_and_make(&layout))?;
    report.add(Row::times(
        &format!("`matchlock image import`, Debian and Python, one gzip layer, {megabytes} MB unpacked"),
        "`umoci unpack`, then `mkfs.erofs`",
        &pair,
        "≤ 0.33×",
    ));
    report.add(Row::memory("most memory of that import", median(peaks), "≤ 64 MiB"));
    Ok(())
}

/// Imports into an empty store; the time, and the most memory that was resident, KiB.
fn import(layout: &Path) -> Result<(Duration, u64)> {
    let matchlock = Matchlock::without_images();
    let import = matchlock.command(&["image", "import", "measured", &layout.to_string_lossy()]);
    let peak = matchlock.user_home().join("peak");
    let mut timed = Command::new("/usr/bin/time");
    timed
        .args(["-f", "%M", "-o"])
        .arg(&peak)
        .arg(import.get_program())
        .args(import.get_args())
        .stdin(Stdio::null());
    for (name, value) in import.get_envs() {
        match value {
            Some(value) => timed.env(name, value),
            None => timed.env_remove(name),
        };
    }
    let output = Running::start(&mut timed, LIMIT).wait().success();
    let peak = fs::read_to_string(&peak)?.trim().parse().context("/usr/bin/time says something else")?;
    Ok((output.duration, peak))
}

fn unpack_and_make(layout: &Path) -> Result<Duration> {
    let work = tempfile::tempdir()?;
    let bundle = work.path().join("bundle");
    let mut umoci = Command::new(tool::find("umoci"));
    umoci.args(["unpack", "--image"]).arg(format!("{}:latest", layout.display()));
    if fs::metadata("/proc/self")?.uid() != 0 {
        umoci.arg("--rootless");
    }
    umoci.arg(&bundle).stdin(Stdio::null());
    let mut mkfs = Command::new(tool::find("mkfs.erofs"));
    mkfs.arg("--quiet").arg(work.path().join("image")).arg(bundle.join("rootfs")).stdin(Stdio::null());
    let unpacked = Running::start(&mut umoci, LIMIT).wait().success();
    let made = Running::start(&mut mkfs, LIMIT).wait().success();
    Ok(unpacked.duration + made.duration)
}
