//! One table, on the terminal and in `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::{Matchlock, tool};

use super::measure::Pair;
use crate::step;

/// One line of the table.
pub(crate) struct Row {
    what: String,
    ours: String,
    against: String,
    theirs: String,
    ratio: String,
    target: &'static str,
}

impl Row {
    /// Times of ours and of something else.
    pub(crate) fn times(what: &str, against: &str, pair: &Pair, target: &'static str) -> Self {
        Self {
            what: format!("{what} (median of {})", pair.rounds),
            ours: milliseconds(pair.ours),
            against: against.to_owned(),
            theirs: milliseconds(pair.theirs),
            ratio: format!("{:.2}×", pair.ratio()),
            target,
        }
    }

    /// How fast as many bytes went, ours and something else's way: the ratio is that of the rates.
    pub(crate) fn rates(what: &str, against: &str, bytes: u64, pair: &Pair, target: &'static str) -> Self {
        Self {
            ours: rate(bytes, pair.ours),
            theirs: rate(bytes, pair.theirs),
            ratio: format!("{:.2}×", 1.0 / pair.ratio()),
            ..Self::times(what, against, pair, target)
        }
    }

    /// How many in a second, ours and something else's, by the time that one takes; the ratio is that of
    /// the frequencies.
    pub(crate) fn frequencies(what: &str, against: &str, pair: &Pair, target: &'static str) -> Self {
        let each_second = |time: Duration| format!("{:.0}/s", 1.0 / time.as_secs_f64());
        Self {
            ours: each_second(pair.ours),
            theirs: each_second(pair.theirs),
            ratio: format!("{:.2}×", 1.0 / pair.ratio()),
            ..Self::times(what, against, pair, target)
        }
    }

    /// An amount of memory, with nothing to compare it to but the target.
    pub(crate) fn memory(what: &str, kib: u64, target: &'static str) -> Self {
        // Exact below 2^53.
        #[expect(clippy::cast_precision_loss, reason = "memory is less than 8 EiB")]
        let ours = format!("{:.1} MiB", kib as f64 / 1024.0);
        Self::alone(what, ours, target)
    }

    /// A figure with nothing to compare it to but the target.
    pub(crate) fn alone(what: &str, ours: String, target: &'static str) -> Self {
        let none = || "–".to_owned();
        Self { what: what.to_owned(), ours, against: none(), theirs: none(), ratio: none(), target }
    }
}

/// With three digits or so.
pub(crate) fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    match milliseconds {
        100.0.. => format!("{milliseconds:.0} ms"),
        10.0.. => format!("{milliseconds:.1} ms"),
        _ => format!("{milliseconds:.2} ms"),
    }
}

fn rate(bytes: u64, time: Duration) -> String {
    // Exact below 2^53.
    #[expect(clippy::cast_precision_loss, reason = "nobody moves 8 PiB here")]
    let megabytes = bytes as f64 / 1e6;
    format!("{:.0} MB/s", megabytes / time.as_secs_f64())
}

/// All figures of one run.
pub(crate) struct Report {
    version: String,
    rows: Vec<Row>,
    stages: Vec<(String, u64)>,
}

impl Report {
    pub(crate) fn new(matchlock: &Matchlock) -> Self {
        let version = matchlock.run(&["version"]).success().stdout_text().trim().to_owned();
        Self { version, rows: Vec::new(), stages: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Where the time of a cold start goes: stages in order with their medians, microseconds.
    pub(crate) fn set_stages(&mut self, stages: Vec<(String, u64)>) {
        self.stages = stages;
    }

    pub(crate) fn print(&self) {
        print!("{}", self.tables());
    }

    /// Writes the page.
    pub(crate) fn write(&self) -> Result<()> {
        let tables = self.tables();
        let page = format!("{HEAD}\n{}, {}.\n\n{tables}{TAIL}", self.version, machine()?);
        let path = step::workspace().join("docs/benchmarks.md");
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
    }

    fn tables(&self) -> String {
        let mut text =
            String::from("| what | ours | against | theirs | ratio | target |\n|---|--:|---|--:|--:|---|\n");
        for Row { what, ours, against, theirs, ratio, target } in &self.rows {
            writeln!(text, "| {what} | {ours} | {against} | {theirs} | {ratio} | {target} |")
                .expect("writing to a string cannot fail");
        }
        if !self.stages.is_empty() {
            text.push_str(STAGES);
        }
        for (name, took_us) in &self.stages {
            let (whole, tenth) = (took_us / 1000, took_us % 1000 / 100);
            writeln!(text, "| {name} | {whole}.{tenth} |").expect("writing to a string cannot fail");
        }
        text
    }
}

/// What it ran on.
fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let qemu = Command::new(tool::find("qemu-system-x86_64")).arg("--version").output()?;
    let qemu = String::from_utf8_lossy(&qemu.stdout);
    let qemu = qemu.lines().next().unwrap_or_default();
    let acceleration = match sys::kvm::probe() {
        Ok(_) => "with KVM".to_owned(),
        Err(reason) => format!("without KVM ({reason})"),
    };
    Ok(format!("{count} × {}, {qemu} {acceleration}", model.trim_start_matches([' ', '\t', ':'])))
}

const HEAD: &str = "\
# Benchmarks

Written by `make bench`; not by hand. Machines are shared and noisy: read the ratios, which are of
medians taken in turns (ours, theirs, ours, …) in one run. Absolute times are context.
";

const STAGES: &str = "
Where the time of a cold start goes (`run --timings`):

| stage | ms |
|---|--:|
";

const TAIL: &str = "
What is compared, and what the floors are:

* Bare QEMU has the machine type, memory and kernel of ours, no device but a silent console, and an
  initramfs with one static busybox that calls `reboot` at once: no channel, disks, agent or jail.
* `umoci unpack` also records an mtree of what it unpacked; `mkfs.erofs` runs without compression,
  which is the form that ours has. Each round of ours imports into an empty store and syncs it.
  The most memory is what `/usr/bin/time` says.
* `ssh localhost true`: OpenSSH's server and client as they are configured by default, a key of
  Ed25519, a new connection each time, `/bin/sh` as the shell. Nothing of it runs in a VM; all that an
  `exec` starts does.
* The raw channel is a bare QEMU like the above, with the CPU model of ours and one virtio-serial port,
  in whose guest busybox moves bytes: `dd` from `/dev/zero` to the port (32 MiB, by 256 KiB), from the port to `/dev/null`, or byte by byte back. An echo starts no process, and that is
  the floor of a round trip, not of an `exec`: a program has to be started, so no `exec` can take less
  than what a shell that runs in the guest already takes to start one. Ours starts two processes, and
  makes namespaces, `/proc` and a system call filter for it.
* `dd` writes to the port itself, but a command's standard output is a pipe that somebody has to read:
  hence the second figure of the raw channel, where `dd` writes into a pipe and `cat` to the port.
  Under emulation the guest's CPU is the limit of all of these; our processes are nearly idle.
* Of the network, what matters is on both sides of the ratio: the same servers, nginx and iperf3, on this
  machine, in a network namespace of their own; the same client in the guest. slirp (`-netdev user`) and
  passt are behind a bare QEMU with the same kernel and machine type; slirp takes packets of 1500
  bytes only, passt gives the guest its own default of 65520. mitmproxy is in its reverse mode beside
  nginx, large bodies streamed, and the guest reaches it through the same open network that *no
  interception* uses. Under emulation TCP and TLS in the guest take most of the time of all of them.
* Memory of flows is what the proportional share of our process grows by, with one request and its
  answer in each of them.
* Idle memory is the proportional share (`Pss` of `/proc/PID/smaps_rollup`); `MemAvailable` also has
  what the kernel needs for it. A VMM's memory is what the guest has touched, and the translated code.
* *On KVM* is in the lab (`scripts/lab`), whose CPU is emulated: only ratios mean something there. *By instructions*: the
  lab's clock counts them, a nanosecond each, and goes on to the next timer when there are none. So the waits
  are those of any machine with its kernel (Linux 6.1, 250 ticks a second), and the rest that of a slow one. Bare Firecracker
  has memory and kernel of ours, its serial console, and the initramfs that reboots at once. The server is
  Python's beside the sandboxes on the lab's one CPU, bodies go through the proxy of a sealed network (down) or a
  plain connection (up), and the time of an `exec` of nothing is taken off.
";
