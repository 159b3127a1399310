//! Many connections at once: what they take of our process's memory.

use anyhow::{Result, bail};
use harness::cache::CLIENTS;
use harness::{Sandbox, Site};

use super::crowd::shares;
use super::report::{Report, Row};

/// Connections at once.
const FLOWS: u64 = 2000;

/// Opens them, sends a word through each and back, and holds them.
const PROGRAM: &str = "
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
address, begin = socket.getaddrinfo('tcp.good.test', 7)[0][4], time.monotonic()
flows = [socket.create_connection(address, timeout=60) for _ in range(2000)]
opened = time.monotonic() - begin
for flow in flows: flow.sendall(b'word')
assert all(flow.recv(4) == b'word' for flow in flows)
print('opened', opened, flush=True)
sys.stdin.read()
";

pub(crate) fn measure(site: &Site, report: &mut Report) -> Result<()> {
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--memory", "1024", "--allow-host", "tcp.good.test"]);
    let _ =
        sandbox.sh("python3 -c 'import socket; socket.create_connection((\"tcp.good.test\", 7))'").success();
    let owner = [matchlock.owner(sandbox.id())];
    let before = shares(&owner)?[0];
    let flows = sandbox.spawn(&["python3", "-c", PROGRAM]);
    flows.wait_for_stdout("opened");
    let all = shares(&owner)?[0].saturating_sub(before);
    let output = flows.wait().success().stdout_text();
    let Some(Ok(seconds)) = output.split_whitespace().nth(1).map(str::parse::<f64>) else {
        bail!("it says {output:?}");
    };
    // Exact: few.
    #[expect(clippy::cast_precision_loss, reason = "few")]
    let (each, rate) = (all as f64 / FLOWS as f64, FLOWS as f64 / seconds);
    report.add(Row::memory(&format!("memory of our process for {FLOWS} open connections"), all, "bounded"));
    report.add(Row::alone("for each of them", format!("{each:.1} KiB"), "–"));
    report.add(Row::alone("connections that a guest opens one after the other", format!("{rate:.0}/s"), "–"));
    sandbox.kill();
    Ok(())
}
