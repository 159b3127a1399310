//! TCP between a sandbox and a host, beside slirp and passt with the same kernel.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::cache::CLIENTS;
use harness::site::TCP;
use harness::{Running, Sandbox, Site, tool};
use serde_json::Value;

use super::measure::{Pair, medians};
use super::peer::{Network, Peer};
use super::report::{Report, Row};

const ROUNDS: usize = 10;

/// Times are those of as many bytes.
const BYTES: u64 = 1 << 30;

/// How long servers live: longer than any benchmark.
const LIMIT: Duration = Duration::from_secs(1800);

pub(crate) fn measure(site: &Site, report: &mut Report) -> Result<()> {
    let mut server = site.server(tool::find("iperf3"));
    let server = Running::start(server.args(["--server", "--forceflush", "--bind", &TCP.to_string()]), LIMIT);
    server.wait_for_stdout("Server listening");
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &[]);
    let slirp = RefCell::new(Peer::boot(&matchlock, site, Network::Slirp)?);
    let passt = RefCell::new(Peer::boot(&matchlock, site, Network::Passt)?);
    for (what, flags) in [
        ("TCP from the guest, 1 stream", "-P 1"),
        ("TCP from the guest, 16 streams", "-P 16"),
        ("TCP to the guest, 1 stream", "-P 1 -R"),
        ("TCP to the guest, 16 streams", "-P 16 -R"),
    ] {
        let line = format!("iperf3 -c {TCP} -t 1 -J {flags}");
        let [ours, of_slirp, of_passt] = medians(
            ROUNDS,
            [
                &mut || time(&sandbox.sh(&line).success().stdout_text()),
                &mut || time(&slirp.borrow_mut().run(&format!("/usr/bin/{line}"))?),
                &mut || time(&passt.borrow_mut().run(&format!("/usr/bin/{line}"))?),
            ],
        )?;
        let pair = |theirs| Pair { ours, theirs, rounds: ROUNDS };
        report.add(Row::rates(what, "slirp (QEMU's user network)", BYTES, &pair(of_slirp), "≥ 2×"));
        report.add(Row::rates(what, "passt", BYTES, &pair(of_passt), "≥ 1×"));
    }
    sandbox.kill();
    Ok(())
}

/// From what iperf3 says: the time of [`BYTES`] at the rate at which they were received.
fn time(report: &str) -> Result<Duration> {
    let json: Value = serde_json::from_str(report).with_context(|| format!("not of iperf3: {report}"))?;
    let bits = json["end"]["sum_received"]["bits_per_second"].as_f64();
    let bits = bits.filter(|bits| *bits > 0.0).with_context(|| format!("no rate: {report}"))?;
    // Exact: a power of two.
    #[expect(clippy::cast_precision_loss, reason = "a power of two")]
    Ok(Duration::from_secs_f64(BYTES as f64 * 8.0 / bits))
}
