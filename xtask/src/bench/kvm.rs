//! Firecracker and QEMU on a KVM that works, in the lab, beside bare Firecracker. Its CPU is emulated: what runs for
//! the first time has to be translated, which is most of a cold start. So the lab's clock counts instructions for
//! those, and for the rest only ratios of one run count.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::cache::{self, BUSYBOX};
use harness::{Running, tool};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::bare;
use super::measure::Pair;
use super::report::{Report, Row};

const ROUNDS: usize = 7;

/// Of what is the same each time, but for random addresses.
const COUNTED_ROUNDS: usize = 15;

/// Bytes of one transfer, as in the script.
const BYTES: u64 = 128 << 20;

/// An hour is more than it takes.
const LIMIT: Duration = Duration::from_secs(3600);

/// What the script prints of sandboxes that run: seconds, and KiB of memory, by backend.
#[derive(Deserialize)]
struct Figures {
    nothing: BTreeMap<String, f64>,
    down: BTreeMap<String, f64>,
    up: BTreeMap<String, f64>,
    memory: BTreeMap<String, u64>,
}

pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let cold: BTreeMap<String, f64> = in_lab(&["--count"], "cold", COUNTED_ROUNDS)?;
    let cold = |name| seconds(&cold, name);
    let pair = |ours, theirs| Pair { ours, theirs, rounds: COUNTED_ROUNDS };
    let start = "on KVM, by instructions: `run --image busybox -- true`, Firecracker";
    let bare = pair(cold("firecracker")?, cold("bare")?);
    report.add(Row::times(start, "bare Firecracker, same kernel, to `reboot`", &bare, "≤ 1.25×"));
    let qemu = pair(cold("firecracker")?, cold("qemu")?);
    report.add(Row::times(start, "the same on QEMU", &qemu, "≤ 1×"));

    let figures: Figures = in_lab(&[], "running", ROUNDS)?;
    let pair = |ours, theirs| Pair { ours, theirs, rounds: ROUNDS };
    for (what, times) in [("TCP to the guest", &figures.down), ("TCP from the guest", &figures.up)] {
        // An `exec` takes its time whatever it runs.
        let net = |name| {
            Ok::<_, anyhow::Error>(seconds(times, name)?.saturating_sub(seconds(&figures.nothing, name)?))
        };
        let pair = pair(net("firecracker")?, net("qemu")?);
        let what = format!("on KVM: {what}, 1 stream, Firecracker");
        report.add(Row::rates(&what, "the same on QEMU", BYTES, &pair, "≥ 1×"));
    }
    for (name, kib) in &figures.memory {
        report.add(Row::memory(
            &format!("on KVM: memory of an idle VMM beside its guest's, {name}"),
            *kib,
            "–",
        ));
    }
    Ok(())
}

/// What a part of the script prints in a lab.
fn in_lab<T: DeserializeOwned>(options: &[&str], part: &str, rounds: usize) -> Result<T> {
    let directory = tempfile::tempdir()?;
    let initramfs = bare::initramfs(directory.path(), "")?;
    let script = tool::source_tree().join("xtask/src/bench/kvm.py");
    let mut lab = Command::new(tool::source_tree().join("scripts/lab"));
    lab.args(["--root", "--memory", "6144"]).args(options);
    for (file, path) in
        [(&script, "/tmp/kvm.py"), (&initramfs, "/tmp/initramfs"), (&cache::tar(BUSYBOX), "/tmp/busybox.tar")]
    {
        lab.arg("--put").arg(format!("{}={path}", file.display()));
    }
    lab.args(["--", "python3", "/tmp/kvm.py", part, &rounds.to_string()]);
    let output = Running::start(&mut lab, LIMIT).wait().success();
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn seconds(times: &BTreeMap<String, f64>, name: &str) -> Result<Duration> {
    let time = times.get(name).with_context(|| format!("the lab measured nothing of {name}"))?;
    Ok(Duration::try_from_secs_f64(*time)?)
}
