//! One table, on the terminal and in `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

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
        let milliseconds = |time: std::time::Duration| format!("{:.0} ms", time.as_secs_f64() * 1000.0);
        Self {
            what: format!("{what} (median of {})", pair.rounds),
            ours: milliseconds(pair.ours),
            against: against.to_owned(),
            theirs: milliseconds(pair.theirs),
            ratio: format!("{:.2}×", pair.ratio()),
            target,
        }
    }

    /// An amount of memory, with nothing to compare it to but the target.
    pub(crate) fn memory(what: &str, kib: u64, target: &'static str) -> Self {
        let none = || "–".to_owned();
        // Exact below 2^53.
        #[expect(clippy::cast_precision_loss, reason = "memory is less than 8 EiB")]
        let ours = format!("{:.1} MiB", kib as f64 / 1024.0);
        Self { what: what.to_owned(), ours, against: none(), theirs: none(), ratio: none(), target }
    }
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

    /// Prints it and writes the page.
    pub(crate) fn publish(&self) -> Result<()> {
        let tables = self.tables();
        print!("{tables}");
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
        text.push_str(
            "\nWhere the time of a cold start goes (`run --timings`):\n\n| stage | ms |\n|---|--:|\n",
        );
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

const TAIL: &str = "
What is compared:

* Bare QEMU has the machine type, memory and kernel of ours, no device but a silent console, and an
  initramfs with one static busybox that calls `reboot` at once: no channel, disks, agent or jail.
* `umoci unpack` also records an mtree of what it unpacked; `mkfs.erofs` runs without compression,
  which is the form that ours has. Each round of ours imports into an empty store and syncs it.
* Memory is what is resident: `/usr/bin/time` for the most, `VmRSS` for what is.
";
