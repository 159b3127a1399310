//! Long, large and slow things through interception, and many of them.

use harness::cache::CLIENTS;
use harness::process::peak_memory_kib;
use harness::{Matchlock, Sandbox, Site};

fn sealed(matchlock: &Matchlock) -> Sandbox<'_> {
    let flags = ["--memory", "1024", "--allow-host", "*.good.test"];
    Sandbox::start(matchlock, CLIENTS, &flags)
}

#[test]
fn large_bodies_go_both_ways_unchanged_in_bounded_memory() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let sandbox = sealed(&matchlock);
    for flag in ["--http2", "--http1.1"] {
        let down = format!("curl -sS {flag} -r 0-99999999 https://www.good.test/zeros | wc -c");
        assert_eq!(sandbox.sh(&down).success().stdout_text().trim(), "100000000", "{flag}");
        // The sum is that of `head -c 50000000 /dev/zero`.
        let up = format!(
            "head -c 50000000 /dev/zero | curl -sS {flag} -T - https://api.good.test/reflect?upload | \
             python3 -c 'import json, sys; r = json.load(sys.stdin); print(r[\"length\"], r[\"sha256\"][:16])'"
        );
        assert_eq!(sandbox.sh(&up).success().stdout_text().trim(), UPLOADED, "{flag}");
    }
    // Content that tells one block from the next, and its sum as a trailer.
    let sums = sandbox
        .sh("curl -sS --http1.1 -H 'TE: trailers' -D /tmp/head -o /tmp/got https://web.good.test/blob/20000001?as=chunked; \
             sed -n 's/^x-sha256: \\([0-9a-f]*\\).*/\\1  -/p' /tmp/head; sha256sum </tmp/got")
        .success()
        .stdout_text();
    let (trailer, sum) = sums.split_once('\n').unwrap_or_default();
    assert_eq!(trailer, sum.trim(), "the trailer is that of the body");
    let owner = peak_memory_kib(matchlock.owner(sandbox.id()));
    assert!(owner < 128 * 1024, "{owner} KiB");
}

/// Length and the start of the SHA-256 of as many zeros.
const UPLOADED: &str = "50000000 ab46920a3bcd0891";

#[test]
fn events_arrive_one_by_one_as_they_are_sent() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let sandbox = sealed(&matchlock);
    // The server sends the second event only after it is told that the first has arrived.
    for (host, client) in [("web", "http2=False"), ("api", "http2=True")] {
        let program = format!(
            "import httpx\n\
             with httpx.Client({client}, timeout=60) as c, c.stream('GET', 'https://{host}.good.test/sse?step={host}') as r:\n\
             \x20for line in r.iter_lines():\n\
             \x20 print(line, flush=True)\n\
             \x20 if line.startswith('data: '): httpx.get('https://web.good.test/step/{host}')"
        );
        let output = sandbox.python(&program).success().stdout_text();
        assert_eq!(output.matches("event: tick").count(), 3, "{host}: {output}");
        assert!(output.contains("data: 2 "), "{host}: {output}");
    }
}

#[test]
fn half_closed_reset_refused_and_silent_connections_are_what_the_guest_sees() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let flags = ["--allow-host", "tcp.good.test", "--allow-host", "web.good.test"];
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &flags);
    let program = "
import socket
def connect(port): return socket.create_connection(('tcp.good.test', port), timeout=60)
s = connect(7); s.sendall(b'all of it'); s.shutdown(socket.SHUT_WR)
print('half', b''.join(iter(lambda: s.recv(99), b'')))
print('first', connect(25).recv(99))
s = connect(9); s.sendall(b'please\\r\\n')
try: print('reset', s.recv(1))
except ConnectionResetError: print('reset reset')
try: connect(1); print('refused connected')
except ConnectionRefusedError: print('refused refused')
s = connect(7); sent = bytes(range(256)) * 8000; import threading
threading.Thread(target=lambda: (s.sendall(sent), s.shutdown(socket.SHUT_WR))).start()
print('echo', b''.join(iter(lambda: s.recv(65536), b'')) == sent)
";
    let output = sandbox.python(program).success().stdout_text();
    let expected = "half b'all of it'\nfirst b'220 good.test speaks first\\r\\n'\nreset reset\nrefused refused\necho True\n";
    assert_eq!(output, expected);
    assert!(site.service("echo").iter().any(|line| line["ended"] == true), "the end of input arrived");
}

#[test]
fn two_thousand_connections_at_once_in_bounded_memory() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let flags = ["--memory", "1024", "--allow-host", "tcp.good.test"];
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &flags);
    let program = "
import socket, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
address = socket.getaddrinfo('tcp.good.test', 7)[0][4]
open_ones = []
for n in range(2000):
    s = socket.create_connection(address, timeout=60); s.sendall(b'%04d' % n); open_ones.append(s)
print(sum(s.recv(4, socket.MSG_WAITALL) == b'%04d' % n for n, s in enumerate(open_ones)))
";
    let output = sandbox.python(program);
    assert_eq!(output.stdout_text(), "2000\n", "{}", output.stderr_text());
    let owner = peak_memory_kib(matchlock.owner(sandbox.id()));
    assert!(owner < 256 * 1024, "{owner} KiB");
    let _ = sandbox.sh("true").success();
}

#[test]
fn upgraded_connections_carry_bytes_both_ways() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let sandbox = sealed(&matchlock);
    let program = "
import asyncio, websockets
async def main(url):
    async with websockets.connect(url, max_size=None) as w:
        for size in [0, 1, 125, 126, 65535, 65536, 1000000]:
            await w.send(b'x' * size)
            assert len(await w.recv()) == size
        await (await w.ping())
    print(w.close_code)
for url in ['wss://ws.good.test/a', 'ws://ws.good.test/b']: asyncio.run(main(url))
";
    assert_eq!(sandbox.python(program).success().stdout_text(), "1000\n1000\n");
}

#[test]
fn git_over_ssh_to_a_named_host_and_to_no_other() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "ssh.good.test:22"]);
    let clone = format!(
        "umask 77; mkdir -p /tmp/k && cat >/tmp/k/key <<'END'\n{}END\n\
         export GIT_SSH_COMMAND='ssh -F /dev/null -i /tmp/k/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/tmp/k/hosts'\n\
         cd /tmp && git clone -q ssh://git@$HOST{} cloned && cat cloned/README && wc -c <cloned/noise",
        site.ssh_key(),
        site.repository().display()
    );
    let output = sandbox.sh(&clone.replace("$HOST", "ssh.good.test")).success();
    assert_eq!(output.stdout_text(), "from the repository\n3145728\n");
    let refused = sandbox.sh(&clone.replace("$HOST", "tcp.good.test").replace("cloned", "other"));
    assert_ne!(refused.code, Some(0));
}
