//! A cold start, from the command line to the exit code, beside the least that QEMU needs to boot
//! the same kernel and end again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use harness::cache::BUSYBOX;
use harness::{Matchlock, Running, tool};
use serde::Deserialize;

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

/// A kernel of `kernel ls --json`.
#[derive(Deserialize)]
struct Kernel {
    path: PathBuf,
    default: bool,
}

pub(crate) fn measure(matchlock: &Matchlock, report: &mut Report) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let initramfs = rebooting_initramfs(directory.path())?;
    let kernel = kernel(matchlock)?;
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
    let theirs = || Ok(Running::start(&mut bare_qemu(&kernel, &initramfs), LIMIT).wait().success().duration);
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

/// The kernel that `run` boots.
fn kernel(matchlock: &Matchlock) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MATCHLOCK_KERNEL") {
        return Ok(path.into());
    }
    let list = matchlock.run(&["kernel", "ls", "--json"]).success();
    let kernels: Vec<Kernel> = serde_json::from_slice(&list.stdout)?;
    let default = kernels.into_iter().find(|kernel| kernel.default);
    Ok(default.context("`matchlock kernel ls --json` lists no default kernel")?.path)
}

/// An initramfs that holds busybox alone, as `/reboot`.
fn rebooting_initramfs(directory: &Path) -> Result<PathBuf> {
    let busybox = tool::find("busybox");
    fs::copy(&busybox, directory.join("reboot"))?;
    let mut cpio = Command::new(busybox);
    cpio.args(["cpio", "-o", "-H", "newc"]).current_dir(directory).stdin(Stdio::piped());
    let mut cpio = Running::start(&mut cpio, LIMIT);
    cpio.input(b"reboot\n");
    let archive = directory.join("initramfs");
    fs::write(&archive, cpio.wait().success().stdout)?;
    Ok(archive)
}

/// QEMU with the machine that our driver uses, but no device besides a console that says nothing.
fn bare_qemu(kernel: &Path, initramfs: &Path) -> Command {
    let (acceleration, clock) = match sys::kvm::probe() {
        Ok(_) => (["-accel", "kvm", "-cpu", "host"], String::new()),
        Err(_) => (
            ["-accel", "tcg", "-cpu", "max"],
            format!("tsc_early_khz={} tsc=reliable mitigations=off", sys::tsc::khz()),
        ),
    };
    let mut qemu = Command::new(tool::find("qemu-system-x86_64"));
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "null"]);
    qemu.args(["-M", "microvm,x-option-roms=off,acpi=off,rtc=on,pit=on,pic=on,isa-serial=on"]);
    qemu.args(acceleration)
        .args(["-m", "512M", "-smp", "1", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs);
    qemu.arg("-append").arg(format!("console=ttyS0 quiet reboot=t panic=-1 {clock} rdinit=/reboot -- -f"));
    qemu.stdin(Stdio::null());
    qemu
}
