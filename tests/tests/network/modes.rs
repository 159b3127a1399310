//! Open, observed, sealed, none: what can be reached in each, and how that changes at run time.

use harness::cache::CLIENTS;
use harness::{Sandbox, Site};

use crate::attacks::{assert_refused, attempts};

/// Who signed the certificate that a client sees.
fn issuer(sandbox: &Sandbox<'_>, host: &str) -> String {
    let line = format!(
        "openssl s_client -connect {host}:443 -servername {host} </dev/null 2>/dev/null | openssl x509 -noout -issuer"
    );
    sandbox.sh(&line).stdout_text()
}

const THEIRS: &str = "Authority of this test";

#[test]
fn open_everything_public_passes_as_it_is() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &[]);
    assert!(issuer(&sandbox, "www.good.test").contains(THEIRS));
    assert!(issuer(&sandbox, "evil.test").contains(THEIRS));
    let program = "
def echo(text):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20); s.sendto(text, (TCP, 9999)); return f'200 {s.recv(2000)}'
def ping(address):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); s.settimeout(20)
    s.sendto(b'\\x08\\0\\0\\0\\0\\0\\0\\1echoed', (address, 1)); return '200' if b'echoed' in s.recv(99) else 'other'
attempt('control ping of the gateway', lambda: ping('100.127.255.1'))
attempt('control plain', lambda: answer(send(plain('evil.test'), get('evil.test', '/reflect'))))
attempt('control udp', lambda: echo(b'datagram in an open network'))
attempt('control large udp', lambda: echo(bytes(1400)))
attempt('control six', lambda: answer(send(plain('2600:45:33:7::15'), get('evil.test', '/reflect'))))
attempt('control tcp', lambda: (lambda s: f'200 {s.recv(99)}')(plain('tcp.good.test', 25)))
attempt('control no name', lambda: answer(send(tls(NGINX, None), get('www.good.test', '/hello'))))
attempt('a closed port', lambda: (plain(WEB, 81), '200')[1])
";
    assert_refused(&attempts(&sandbox, program));
    assert!(site.service("udp").iter().any(|line| line.to_string().contains("datagram in an open network")));
    let routes = sandbox.sh("ip route").success().stdout_text();
    assert!(routes.contains("default via 100.127.255.1"), "{routes}");
}

#[test]
fn observed_everything_public_and_every_request_is_told() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--network-intercept"]);
    let output = sandbox.sh("curl -sS https://evil.test/reflect?observed").success().stdout_text();
    assert!(output.contains("observed"), "{output}");
    let events = sandbox.events();
    let event = events.iter().find(|event| event["url"] == "https://evil.test/reflect?observed");
    let event = event.unwrap_or_else(|| panic!("it is not told: {events:?}"));
    assert_eq!(
        (&event["method"], &event["status_code"], &event["blocked"]),
        (&"GET".into(), &200.into(), &false.into())
    );
    let udp = "attempt('udp', lambda: (lambda s: (s.settimeout(2), s.sendto(b'observed datagram', (TCP, 9999)), s.recv(99))[2])(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))";
    assert_refused(&attempts(&sandbox, udp));
    // The first host seals it.
    let added = sandbox.command(&["allow-list", "add"], &["www.good.test"]).success().stdout_text();
    assert!(added.contains("Current allow-list: www.good.test"), "{added}");
    assert_ne!(sandbox.sh("curl -sS https://evil.test/reflect").code, Some(0));
    assert_eq!(
        sandbox.sh("curl -sS https://www.good.test/hello").success().stdout_text(),
        "hello over HTTP/2.0\n"
    );
    assert!(!site.service("udp").iter().any(|line| line.to_string().contains("observed datagram")));
}

#[test]
fn sealed_nothing_but_what_is_named() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let flags = [
        "--allow-host",
        "www.good.test,web.good.test:80,tcp.good.test:7",
        "--allow-host",
        "10.77.0.1,45.33.7.12/32",
    ];
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &flags);
    let program = "
def speak(port, text=b'hi'):
    s = send(plain('tcp.good.test', port), text); return f'200 {s.recv(99)}'
attempt('control name', lambda: answer(send(tls('www.good.test', 'www.good.test'), get('www.good.test', '/hello'))))
attempt('control port', lambda: answer(send(plain('web.good.test'), get('web.good.test', '/reflect'))))
attempt('other port', lambda: answer(send(tls('web.good.test', 'web.good.test'), get('web.good.test', '/reflect'))))
attempt('control tcp', lambda: speak(7))
attempt('other tcp port', lambda: speak(25))
attempt('control private address', lambda: answer(send(plain('10.77.0.1'), get('10.77.0.1', '/reflect'))))
attempt('control block', lambda: (plain('45.33.7.12', 443), '200')[1])
attempt('other name', lambda: answer(send(plain('evil.test'), get('evil.test'))))
attempt('other address', lambda: answer(send(plain(EVIL), get('evil.test'))))
attempt('udp', lambda: (lambda s: (s.settimeout(2), s.sendto(b'sealed datagram', (TCP, 9999)), s.recv(99))[2])(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
attempt('quic', lambda: (lambda s: (s.settimeout(2), s.sendto(b'\\xc0' + bytes(1199), (NGINX, 443)), s.recv(99))[2])(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
";
    assert_refused(&attempts(&sandbox, program));
    assert!(!site.service("udp").iter().any(|line| line.to_string().contains("sealed datagram")));
    assert!(!issuer(&sandbox, "www.good.test").contains(THEIRS), "it is looked into");
    site.assert_untouched();
}

#[test]
fn none_means_none() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--no-network"]);
    assert_eq!(sandbox.sh("ls /sys/class/net").success().stdout_text(), "lo\n");
    let program = "attempt('name', lambda: plain('www.good.test'))\nattempt('address', lambda: plain(NGINX))";
    assert_refused(&attempts(&sandbox, program));
    for conflict in [&["--allow-host", "a.test"][..], &["--secret", "K=v@a.test"], &["--network-intercept"]] {
        let output = matchlock
            .run(&[&["run", "--no-network"], conflict, &["--image", CLIENTS, "--", "true"]].concat());
        assert_eq!(output.code, Some(2), "{conflict:?}");
        assert!(output.stderr_text().contains("--no-network"), "{}", output.stderr_text());
    }
}

#[test]
fn hosts_taken_back_are_gone_for_what_is_open_too_and_the_seal_stays() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "tcp.good.test,www.good.test"]);
    // One connection each, that would go on for ever.
    let program = "
import socket, ssl, sys
echo = socket.create_connection(('tcp.good.test', 7), timeout=60)
https = ssl.create_default_context().wrap_socket(socket.create_connection(('www.good.test', 443), timeout=60), server_hostname='www.good.test')
def use(what):
    try:
        if what == 'echo': echo.sendall(b'x'); return bool(echo.recv(1))
        https.sendall(b'GET /hello HTTP/1.1\\r\\nHost: www.good.test\\r\\n\\r\\n'); return b' 200 ' in https.recv(65536)
    except OSError: return False
print('start', use('echo'), use('https'), flush=True)
for line in sys.stdin: print(line.strip(), use('echo'), use('https'), flush=True)
";
    let mut running = sandbox.spawn(&["python3", "-c", program]);
    running.wait_for_stdout("start True True\n");
    let change =
        |what: &str, hosts: &str| sandbox.command(&["allow-list", what], &[hosts]).success().stdout_text();
    let said = change("delete", "tcp.good.test");
    assert!(
        said.contains(&format!(
            "Removed from {}: tcp.good.test\nCurrent allow-list: www.good.test",
            sandbox.id()
        )),
        "{said}"
    );
    running.input(b"one\n");
    running.wait_for_stdout("one False True\n");
    let said = change("delete", "www.good.test");
    assert!(said.contains("Current allow-list: (empty: all hosts blocked)"), "{said}");
    running.input(b"two\n");
    running.wait_for_stdout("two False False\n");
    let fetch = |url: &str| sandbox.sh(&format!("curl -sS --max-time 20 {url}")).code == Some(0);
    assert!(!fetch("https://www.good.test/hello") && !fetch("http://evil.test/reflect"));
    let said = change("add", "www.good.test,api.good.test");
    assert!(said.starts_with(&format!("Added to {}: ", sandbox.id())), "{said}");
    assert!(
        fetch("https://www.good.test/hello")
            && fetch("https://api.good.test/reflect")
            && !fetch("http://evil.test/reflect")
    );
    let _ = change("add", "*");
    assert!(fetch("http://evil.test/reflect"), "reopened explicitly");
    let private =
        attempts(&sandbox, "attempt('private', lambda: answer(send(plain('10.66.0.1'), get('10.66.0.1'))))");
    assert_refused(&private);
    for wrong in ["", "not a host", "a..b", "-"] {
        assert_ne!(sandbox.command(&["allow-list", "add"], &["--", wrong]).code, Some(0), "{wrong:?}");
    }
}

#[test]
fn passed_through_hosts_show_their_own_certificate_and_get_no_secret() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let flags = [
        "--allow-host",
        "web.good.test",
        "--passthrough-host",
        "www.good.test",
        "--secret",
        "KEY=value-passed@web.good.test",
    ];
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &flags);
    assert!(issuer(&sandbox, "www.good.test").contains(THEIRS));
    assert!(!issuer(&sandbox, "web.good.test").contains(THEIRS));
    let program = "
known('www.good.test')
attempt('control', lambda: answer(send(tls('www.good.test', 'www.good.test'), get('www.good.test', '/hello'))))
attempt('another name there', lambda: answer(send(tls(NGINX, 'cdn.evil.test'), get('cdn.evil.test'))))
attempt('no name', lambda: answer(send(tls(NGINX, None), get('www.good.test', '/hello'))))
";
    assert_refused(&attempts(&sandbox, program));
    let _ = sandbox.sh("curl -ksS -H \"X-Key: $KEY\" https://www.good.test/hello");
    site.assert_unseen("value-passed", |line| line["sni"] != "web.good.test");
}

#[test]
fn servers_whose_certificate_is_wrong_are_not_spoken_to() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "*.good.test"]);
    let output = sandbox.sh("curl -ksS -w ' %{http_code}' https://wrong.good.test/");
    assert!(!output.stdout_text().contains("you should not see this"), "{}", output.stdout_text());
    let failed =
        sandbox.events().iter().any(|event| event["host"] == "wrong.good.test" && event["error"].is_string());
    assert!(failed, "{:?}", sandbox.events());
}
