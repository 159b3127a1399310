//! HTTPS through interception, beside mitmproxy and beside no interception.

use std::time::Duration;

use anyhow::{Context, Result};
use harness::cache::CLIENTS;
use harness::process::Pid;
use harness::site::TCP;
use harness::{Matchlock, Running, Sandbox, Site, tool};
use tempfile::TempDir;

use super::crowd::ticks;
use super::measure::{Pair, medians};
use super::report::{Report, Row};

const ROUNDS: usize = 10;

/// Bytes of a large body.
const DOWN: u64 = 64 << 20;
const UP: u64 = 32 << 20;

/// `USER_HZ`, the unit of CPU times.
const TICK: Duration = Duration::from_millis(10);

/// How long a proxy lives: longer than any benchmark.
const LIMIT: Duration = Duration::from_secs(1800);

/// mitmproxy before both of nginx's hosts that are measured.
struct Proxy {
    process: Running,
    _directory: TempDir,
}

impl Proxy {
    fn start(site: &Site) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut command = site.server(tool::find("mitmdump"));
        command.args([
            "--mode",
            "reverse:https://www.good.test@8443",
            "--mode",
            "reverse:https://api.good.test@8444",
        ]);
        command.arg("--set").arg(format!("confdir={}", directory.path().display()));
        command.arg("--set").arg(format!("ssl_verify_upstream_trusted_ca={}", site.authority().display()));
        // Neither a line for each flow nor a whole body in memory.
        command.args(["--set", "flow_detail=0", "--set", "stream_large_bodies=64k"]);
        // The addresses here look public, whose connections it refuses otherwise.
        command.args(["--set", "block_global=false", "--listen-host"]);
        let process = Running::start(command.arg(TCP.to_string()), LIMIT);
        for port in [8443, 8444] {
            process.wait_for_stdout(&format!("{TCP}:{port}"));
        }
        Ok(Self { process, _directory: directory })
    }
}

/// A guest and the addresses of the two hosts as it reaches them.
struct Way<'a> {
    sandbox: Sandbox<'a>,
    www: String,
    api: String,
}

impl<'a> Way<'a> {
    fn start(matchlock: &'a Matchlock, flags: &[&str]) -> Self {
        let sandbox = Sandbox::start(matchlock, CLIENTS, flags);
        // With its port, whose name wrk would look up in a file that the image has not.
        Self { sandbox, www: "www.good.test:443".into(), api: "api.good.test:443".into() }
    }

    fn curl(&self, words: &str) -> Result<Duration> {
        // No certificate is checked, since that of an open network's server is nobody's.
        let line = format!(
            "curl -fksS -o /dev/null -w '%{{time_total}} %{{size_download}} %{{size_upload}}' {words}"
        );
        let said = self.sandbox.sh(&line).success().stdout_text();
        let mut words = said.split_whitespace();
        let time = words.next().with_context(|| format!("no time in {said:?}"))?.parse()?;
        anyhow::ensure!(words.any(|bytes| bytes.parse().is_ok_and(|bytes: u64| bytes >= UP)), "{said}");
        Ok(Duration::from_secs_f64(time))
    }

    fn download(&self) -> Result<Duration> {
        self.curl(&format!("--http1.1 -r 0-{} https://{}/zeros", DOWN - 1, self.www))
    }

    fn upload(&self) -> Result<Duration> {
        self.curl(&format!("--http1.1 -T /tmp/upload https://{}/reflect", self.api))
    }

    /// Requests of some connections at once: the time between two answers, and the median one's.
    fn requests(&self, connections: u32) -> Result<(Duration, Duration)> {
        let line = format!("wrk -t 1 -c {connections} -d 1 --latency https://{}/hello", self.www);
        let said = self.sandbox.sh(&line).success().stdout_text();
        let after = |name: &str| {
            let rest = said.lines().find_map(|line| line.trim().strip_prefix(name));
            rest.map(|rest| rest.trim().to_owned()).with_context(|| format!("no {name} in {said}"))
        };
        let rate: f64 = after("Requests/sec:")?.parse()?;
        Ok((Duration::from_secs_f64(1.0 / rate), latency(&after("50%")?).with_context(|| said.clone())?))
    }
}

pub(crate) fn measure(site: &Site, report: &mut Report) -> Result<()> {
    let proxy = Proxy::start(site)?;
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let ours = Way::start(&matchlock, &["--allow-host", "*.good.test"]);
    let plain = Way::start(&matchlock, &[]);
    let proxied =
        Way { www: format!("{TCP}:8443"), api: format!("{TCP}:8444"), ..Way::start(&matchlock, &[]) };
    let ways = [&ours, &plain, &proxied];
    for way in ways {
        let _ = way.sandbox.sh(&format!("head -c {UP} /dev/zero >/tmp/upload")).success();
    }
    let (plainly, proxied_by) = ("no interception (open network)", "mitmproxy 11");
    let mut add = |row: &dyn Fn(&str, &Pair, &'static str) -> Row, times: [Duration; 3]| {
        let pair = |theirs| Pair { ours: times[0], theirs, rounds: ROUNDS };
        report.add(row(plainly, &pair(times[1]), "≥ 0.7×"));
        report.add(row(proxied_by, &pair(times[2]), "≥ 10×"));
    };
    let [a, b, c] = ways;
    let times = medians(ROUNDS, [&mut || a.download(), &mut || b.download(), &mut || c.download()])?;
    add(
        &|against, pair, target| {
            Row::rates("HTTPS download of 64 MiB through interception", against, DOWN, pair, target)
        },
        times,
    );
    let times = medians(ROUNDS, [&mut || a.upload(), &mut || b.upload(), &mut || c.upload()])?;
    add(
        &|against, pair, target| {
            Row::rates("HTTPS upload of 32 MiB through interception", against, UP, pair, target)
        },
        times,
    );
    for connections in [1, 16] {
        let mut latencies = [const { Vec::new() }; 3];
        let [of_ours, of_plain, of_proxy] = &mut latencies;
        let one = |way: &Way<'_>, latencies: &mut Vec<Duration>| {
            let (between, median) = way.requests(connections)?;
            latencies.push(median);
            Ok(between)
        };
        let times =
            medians(ROUNDS, [&mut || one(a, of_ours), &mut || one(b, of_plain), &mut || one(c, of_proxy)])?;
        let what = format!("HTTPS requests, {connections} kept connection(s), through interception");
        add(&|against, pair, target| Row::frequencies(&what, against, pair, target), times);
        let what = format!("latency of these, {connections} connection(s)");
        add(&|against, pair, _| Row::times(&what, against, pair, "–"), latencies.map(super::measure::median));
    }
    // Most of the time above is the guest's own, which is emulated; this is not.
    let owner = [matchlock.owner(ours.sandbox.id())];
    let cpu = |processes: &[Pid], way: &Way<'_>| {
        let before = ticks(processes)?;
        let _ = way.download()?;
        Ok(TICK * u32::try_from(ticks(processes)? - before)?)
    };
    let [in_ours, in_proxy] =
        medians(ROUNDS, [&mut || cpu(&owner, a), &mut || cpu(&[proxy.process.pid()], c)])?;
    let pair = Pair { ours: in_ours, theirs: in_proxy, rounds: ROUNDS };
    let what = "CPU time in the middle for a download of 64 MiB, the guest's TCP included";
    report.add(Row::times(what, "mitmproxy 11, without that", &pair, "–"));
    Ok(())
}

/// A time as wrk writes it: `812.00us`, `1.20ms`, `1.03s`.
fn latency(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrks_times_have_three_units() {
        let times = ["812.00us", "1.25ms", "1.50s", "3m"].map(latency);
        let micros = |number| Some(Duration::from_micros(number));
        assert_eq!(times, [micros(812), micros(1250), micros(1_500_000), None]);
    }
}
