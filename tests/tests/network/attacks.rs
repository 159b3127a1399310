//! Rows 1 to 4 of the promises: what reaches a host under another one's name, or an address that is
//! nobody's business.

use harness::cache::CLIENTS;
use harness::site::{DNS, EVIL, INSIDE, SELF, WEB};
use harness::{Sandbox, Site};
use serde_json::{Value, json};

/// The beginning of every attacking program.
pub(crate) const ATTACKER: &str = include_str!("../../clients/attacker.py");

/// Runs an attacking program; each attempt's name with what came of it.
pub(crate) fn attempts(sandbox: &Sandbox<'_>, program: &str) -> Vec<(String, String)> {
    let output = sandbox.python(&format!("{ATTACKER}\n{program}")).success().stdout_text();
    let attempt = |line: &str| line.split_once(" => ").map(|(name, came)| (name.to_owned(), came.to_owned()));
    let attempts: Vec<_> = output.lines().filter_map(attempt).collect();
    assert!(!attempts.is_empty(), "{output}");
    attempts
}

/// Every attempt was refused: by a response of ours, or without any. Those named `control …` succeeded.
pub(crate) fn assert_refused(attempts: &[(String, String)]) {
    let wrong: Vec<String> = attempts
        .iter()
        .filter(|(name, came)| {
            let refused = ["error ", "alert", "end", "403 ", "400 ", "421 ", "431 ", "501 ", "502 "];
            let refused = refused.iter().any(|start| came.starts_with(start));
            refused == name.starts_with("control") || came.contains("evil.test by")
        })
        .map(|(name, came)| format!("{name}: {came}"))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), attempts.len(), wrong.join("\n"));
}

/// Denials so far, by code.
fn denied(sandbox: &Sandbox<'_>, code: &str) -> usize {
    sandbox.events().iter().filter(|event| event["blocked"] == true && event["block_code"] == code).count()
}

const FRONTING: &str = r"
known('www.good.test')
attempt('control', lambda: answer(send(tls(NGINX, 'www.good.test'), get('www.good.test'))))
attempt('h1, other host', lambda: answer(send(tls(NGINX, 'www.good.test'), get('cdn.evil.test'))))
attempt('h1, other allowed host', lambda: answer(send(tls(NGINX, 'www.good.test'), get('api.good.test', '/reflect?fronted'))))
def later(second):
    s = send(tls(NGINX, 'www.good.test'), get('www.good.test'))
    if not answer(s).startswith('200'): return '200 first one failed'
    return answer(send(s, get(second)))
attempt('control, same again', lambda: later('www.good.test'))
attempt('h1, other host on a later request', lambda: later('cdn.evil.test'))
attempt('h1, pipelined', lambda: (lambda s: (answer(s), answer(s))[1])(send(tls(NGINX, 'www.good.test'), get('www.good.test') + get('cdn.evil.test'))))
attempt('plain, other host', lambda: answer(send(plain(NGINX), get('cdn.evil.test'))))
attempt('plain, other host elsewhere', lambda: answer(send(plain(NGINX), get('evil.test', '/reflect?fronted'))))
def plainly(second):
    s = send(plain(NGINX), get('www.good.test')); answer(s)
    return answer(send(s, get(second)))
attempt('plain, other host on a later request', lambda: plainly('cdn.evil.test'))

import h2.connection, h2.config, h2.events
def two(first, second, name='www.good.test', **more):
    s = tls(NGINX, name, 'h2')
    c = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False))
    c.initiate_connection(); came = []
    for stream, headers in [(1, first), (3, second)]:
        c.send_headers(stream, headers, end_stream=True)
        s.sendall(c.data_to_send()); status, body, done = None, b'', False
        while not done:
            data = s.recv(65536)
            if not data: return 'end'
            for event in c.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived): status = dict(event.headers).get(b':status', dict(event.headers).get(':status'))
                if isinstance(event, h2.events.DataReceived): body += event.data
                if isinstance(event, h2.events.ConnectionTerminated): return 'end'
                done |= isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset))
                if isinstance(event, h2.events.StreamReset): status = b'403 reset'
            s.sendall(c.data_to_send())
        came.append((status if isinstance(status, str) else (status or b'').decode()) + ' ' + body.decode())
    return came[1] if came[0].startswith('200') else '200 first one failed ' + came[0]
def head(authority, *more, path='/who'):
    return [(':method', 'GET'), (':scheme', 'https'), (':authority', authority), (':path', path), *more]
good = head('www.good.test')
attempt('control h2', lambda: two(good, good))
attempt('h2, other authority on a later stream', lambda: two(good, head('cdn.evil.test')))
attempt('h2, other host header', lambda: two(good, head('www.good.test', ('host', 'cdn.evil.test'))))
attempt('h2, two authorities', lambda: two(good, [(':authority', 'cdn.evil.test'), *good]))
attempt('h2, authority with userinfo', lambda: two(good, head('www.good.test@cdn.evil.test')))
attempt('h2, no authority and other host', lambda: two(good, [h for h in good if h[0] != ':authority'] + [('host', 'cdn.evil.test')]))
attempt('h2, path that is an URL', lambda: two(good, head('www.good.test', path='https://cdn.evil.test/who')))
attempt('h2, other scheme', lambda: two(good, [(':method', 'GET'), (':scheme', 'http'), (':authority', 'cdn.evil.test'), (':path', '/who')]))
attempt('h2, CONNECT', lambda: two(good, [(':method', 'CONNECT'), (':authority', 'cdn.evil.test:443')]))
";

#[test]
fn row_1_domain_fronting_by_host_or_authority_on_any_request_of_a_connection() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "*.good.test"]);
    assert_refused(&attempts(&sandbox, FRONTING));
    assert!(site.requests("fronted").is_empty(), "it was passed on");
    assert!(denied(&sandbox, "sni_host_mismatch") >= 5);
    assert!(denied(&sandbox, "host_not_allowed") >= 2);
}

const ODD_NAMES: &str = r"
known('www.good.test')
attempt('control hello', lambda: shaken(NGINX, client_hello(b'www.good.test')))
attempt('control upper case', lambda: shaken(NGINX, client_hello(b'WWW.Good.TEST')))
attempt('no name', lambda: shaken(NGINX, client_hello(None)))
attempt('no name, by address', lambda: answer(send(tls(NGINX, None), get('www.good.test'))))
for name in [b'45.33.7.10', b'::1', b'[::1]', b'2130706433', b'0x7f.1', b'www.good.test.', b'.www.good.test', b'www..good.test',
             b'www.good.test\0', b'www.good.test\0.evil.test', b'cdn.evil.test\0.good.test', b'www.good.test%00', b'', b'.',
             b'www.good.test:443', b'user@www.good.test', b'w\xc3\xbcrmer.good.test', b'*.good.test', b'www good.test', b'-.good.test',
             b'a' * 64 + b'.good.test', b'a.' * 130 + b'good.test']:
    attempt(f'name {name[:40]!r}', lambda: shaken(NGINX, client_hello(name)))
for name in ['cdn.evil.test', 'evil.test', 'good.test']:
    attempt(f'name {name}, said why', lambda: answer(send(tls(NGINX, name), get(name))))
attempt('hidden name', lambda: shaken(NGINX, client_hello(b'www.good.test', extension(0xfe0d, b'\0' + os.urandom(200)))))
attempt('hidden name, as it once was', lambda: shaken(NGINX, client_hello(b'www.good.test', extension(0xffce, os.urandom(200)))))
two = extension(0, vector(2, b'\0' + vector(2, b'www.good.test') + b'\0' + vector(2, b'cdn.evil.test')))
attempt('two names in one list', lambda: shaken(NGINX, client_hello(None, two)))
attempt('two lists of names', lambda: shaken(NGINX, client_hello(b'cdn.evil.test', extension(0, vector(2, b'\0' + vector(2, b'www.good.test'))))))
hello = client_hello(b'www.good.test')
attempt('control in pieces', lambda: (lambda s: ([send(s, hello[at:at + 1]) for at in range(len(hello))], s.recv(1) == b'\x16' and 'hello' or 'end')[1])(plain(NGINX)))
records = b''.join(b'\x16\x03\x01' + vector(2, hello[5:][at:at + 20]) for at in range(0, len(hello) - 5, 20))
attempt('control in many records', lambda: shaken(NGINX, records))
attempt('not for this port', lambda: shaken(NGINX, client_hello(b'www.good.test'), 8443))

def over(head, secure=True):
    return lambda: answer(send(tls(NGINX, 'www.good.test') if secure else plain(NGINX), head))
for secure in [True, False]:
    how = 'TLS' if secure else 'plain'
    attempt(f'control {how} with port', over(get('www.good.test:443' if secure else 'www.good.test:80'), secure))
    attempt(f'control {how} upper case', over(get('WWW.gOOD.test'), secure))
    for host in ['www.good.test.', 'cdn.evil.test', 'www.good.test\0', 'www.good.test%00.evil.test', 'www.good.test\0.evil.test', 'user@www.good.test',
                 'www.good.test@cdn.evil.test', 'cdn.evil.test#www.good.test', 'www.good.test,cdn.evil.test', 'www.good.test cdn.evil.test',
                 'www.good.test:22x', 'www.good.test:0', 'www.good.test:99999', 'www.good.test:', 'www.good.test:22', 'http://www.good.test', 'www.good.test/', '',
                 'w\xc3\xbcrmer.good.test', '45.33.7.10', '[::1]', '127.1', '0x7f.1', '2130706433', 'localhost', '*.good.test']:
        attempt(f'{how} host {host!r}', over(get(host), secure))
    attempt(f'{how} no host', over('GET /who HTTP/1.1\r\n\r\n', secure))
    attempt(f'{how} two hosts', over('GET /who HTTP/1.1\r\nHost: www.good.test\r\nHost: cdn.evil.test\r\n\r\n', secure))
    attempt(f'{how} two hosts, the other first', over('GET /who HTTP/1.1\r\nHost: cdn.evil.test\r\nHost: www.good.test\r\n\r\n', secure))
    attempt(f'{how} the same host twice', over('GET /who HTTP/1.1\r\nHost: www.good.test\r\nHost: www.good.test\r\n\r\n', secure))
    for scheme in ['http', 'https']:
        attempt(f'{how} absolute {scheme}', over(f'GET {scheme}://cdn.evil.test/who HTTP/1.1\r\nHost: www.good.test\r\n\r\n', secure))
        attempt(f'{how} absolute {scheme}, other host', over(f'GET {scheme}://www.good.test/who HTTP/1.1\r\nHost: cdn.evil.test\r\n\r\n', secure))
    attempt(f'{how} absolute with userinfo', over('GET https://www.good.test@cdn.evil.test/who HTTP/1.1\r\nHost: www.good.test\r\n\r\n', secure))
    attempt(f'{how} host with a space before the colon', over('GET /who HTTP/1.1\r\nHost : cdn.evil.test\r\nHost: www.good.test\r\n\r\n', secure))
    attempt(f'{how} folded host', over('GET /who HTTP/1.1\r\nHost: www.good.test\r\n cdn.evil.test\r\n\r\n', secure))
    attempt(f'{how} CONNECT', over('CONNECT cdn.evil.test:443 HTTP/1.1\r\nHost: cdn.evil.test:443\r\n\r\n', secure))
    attempt(f'{how} CONNECT of an allowed host', over('CONNECT www.good.test:443 HTTP/1.1\r\nHost: www.good.test:443\r\n\r\n', secure))
";

#[test]
fn row_2_names_that_are_missing_hidden_doubled_or_odd() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "*.good.test"]);
    let attempts = attempts(&sandbox, ODD_NAMES);
    assert!(attempts.len() > 100, "{}", attempts.len());
    assert_refused(&attempts);
    for code in ["sni_missing", "sni_invalid", "ech", "connect_method", "malformed_host"] {
        assert!(denied(&sandbox, code) > 0, "{code}");
    }
    site.assert_untouched();
}

/// Names whose addresses are private, all or some, and what was asked for.
const PRIVATE_NAMES: [&str; 14] = [
    "self",
    "loopback",
    "zero",
    "ten",
    "metadata",
    "shared",
    "unique",
    "link",
    "mapped",
    "nat64",
    "sixtofour",
    "multicast",
    "chain",
    "inside",
];

#[test]
fn row_3_allowed_names_with_private_addresses_however_they_are_written() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    for flags in [&["--allow-host", "*.good.test"][..], &["--network-intercept"], &[]] {
        let sandbox = Sandbox::start(&matchlock, CLIENTS, flags);
        let names: Vec<String> = PRIVATE_NAMES.iter().map(|name| format!("{name}.good.test")).collect();
        let program = format!(
            "known('web.good.test')\n\
             names = {names:?}\n\
             for name in names:\n\
             \x20attempt('resolve ' + name, lambda: {{a[4][0] for a in socket.getaddrinfo(name, 443)}})\n\
             \x20attempt('http ' + name, lambda: answer(send(plain(name), get(name))))\n\
             \x20if {}:\n\
             \x20 attempt('tls elsewhere ' + name, lambda: answer(send(tls(WEB, name), get(name))))\n\
             \x20 attempt('http elsewhere ' + name, lambda: answer(send(plain(WEB), get(name))))\n",
            // An open network is not looked into.
            if flags.is_empty() { "False" } else { "True" },
        );
        assert_refused(&attempts(&sandbox, &program));
        let mixed = "attempt('control', lambda: {a[4][0] for a in socket.getaddrinfo('mixed.good.test', 80)} == {WEB} \
                     and answer(send(plain('mixed.good.test'), get('mixed.good.test', '/reflect'))))";
        let mixed = &attempts(&sandbox, mixed)[0].1;
        assert!(mixed.starts_with("200 "), "only the public address of several: {mixed}");
        sandbox.kill();
    }
    site.assert_untouched();
    assert!(!site.web(INSIDE).iter().any(|line| line["target"] == "/who"));
}

#[test]
fn row_3_private_addresses_themselves_are_out_of_reach_in_every_mode() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let program = format!(
        "for address in ['10.66.0.1', '172.16.66.1', '192.168.66.1', '169.254.169.254', '100.64.66.1', '100.127.255.1', 'fd00:66::1',\n\
         \x20               'fd6d:6174:6368::1', '::ffff:10.66.0.1', '64:ff9b::a42:1', '2002:a42:1::1', '0.0.0.1', '224.0.0.1', '255.255.255.255', '240.0.0.1', '{INSIDE}', '{SELF}', '2600:45:33:8::2']:\n\
         \x20for port in [80] if address == '0.0.0.1' else [80, 443, 53]:\n\
         \x20 if port == 53: attempt(address, lambda: (plain(address, 22), '200')[1])\n\
         \x20 elif port == 80: attempt(address, lambda: answer(send(plain(address), get(address))))\n\
         \x20 else: attempt(address, lambda: shaken(address, client_hello(None)))\n"
    );
    for flags in [&["--allow-host", "*.good.test,*"][..], &["--network-intercept"], &[]] {
        let sandbox = Sandbox::start(&matchlock, CLIENTS, flags);
        assert_refused(&attempts(&sandbox, &program));
        assert!(denied(&sandbox, "private_address") >= 10, "{flags:?}");
        sandbox.kill();
    }
    site.assert_untouched();
    assert!(!site.web(INSIDE).iter().any(|line| line["target"] == "/who"));
}

#[test]
fn row_3_names_that_change_between_the_check_and_the_connection() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let turns = |first: &str, then: &[&str]| {
        let entry = |address: &&str| json!({ "A": [address], "ttl": 0 });
        Value::Array(std::iter::once(&first).chain(then).map(entry).collect())
    };
    let public = WEB.to_string();
    site.answer("turn1.good.test", turns(&public, &["10.66.0.1", "127.0.0.1"]));
    site.answer("turn2.good.test", turns(&public, &[&public, "10.66.0.1"]));
    site.answer("turn3.good.test", turns("127.0.0.1", &[&public, "169.254.169.254"]));
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "*.good.test"]);
    let program = "
known('web.good.test')
for name in ['turn1.good.test', 'turn2.good.test', 'turn3.good.test', 'rebind.good.test', 'flip.good.test']:
    for n in range(5):
        for how in [lambda: tls(name, name), lambda: tls(WEB, name), lambda: plain(name), lambda: plain(WEB)]:
            attempt(name, lambda: answer(send(how(), get(name, '/reflect?turn'))))
";
    let attempts = attempts(&sandbox, program);
    assert!(
        attempts
            .iter()
            .all(|(_, came)| ["200 ", "403 ", "502 ", "error"].iter().any(|it| came.starts_with(it))),
        "{attempts:?}"
    );
    let servers: Vec<_> = site.requests("turn").iter().map(|line| line["server"].clone()).collect();
    assert!(servers.iter().all(|server| *server == public), "{servers:?}");
    site.assert_untouched();
}

#[test]
fn row_4_an_address_that_an_allowed_name_shares_with_others() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "www.good.test"]);
    let program = "
attempt('control', lambda: answer(send(tls('www.good.test', 'www.good.test'), get('www.good.test'))))
attempt('other name', lambda: answer(send(tls(NGINX, 'cdn.evil.test'), get('cdn.evil.test'))))
attempt('other name, allowed host', lambda: answer(send(tls(NGINX, 'cdn.evil.test'), get('www.good.test'))))
attempt('no name', lambda: answer(send(tls(NGINX, None), get('www.good.test'))))
attempt('plain other host', lambda: answer(send(plain(NGINX), get('cdn.evil.test'))))
def raw(port, first):
    s = send(plain(NGINX, port), first); got = s.recv(99)
    return 'end' if not got else '403' if b' 400 ' in got or b' 403 ' in got else f'200 {got}'
for port in [80, 443]:
    attempt(f'no protocol {port}', lambda: raw(port, b'\\x00\\x01hello there, this is neither'))
    attempt(f'ssh {port}', lambda: raw(port, b'SSH-2.0-OpenSSH_9.2\\r\\n'))
    attempt(f'h2 without TLS {port}', lambda: raw(port, b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' + bytes(9) + b'\\x00\\x00\\x00\\x04\\x00\\x00\\x00\\x00\\x00'))
attempt('another port', lambda: (plain(NGINX, 8443), '200')[1])
attempt('never resolved', lambda: answer(send(plain(WEB), get('web.good.test'))))
attempt('never resolved, under an allowed name', lambda: (lambda a: 'end' if '\"server' in a else a)(answer(send(plain(EVIL), get('www.good.test', '/reflect?shared')))))
";
    let attempts = attempts(&sandbox, program);
    // A name that is allowed is dialled by that name, whatever address the guest chose.
    let (last, rest) = attempts.split_last().expect("there are some");
    assert_refused(
        &rest.iter().filter(|(name, _)| !name.starts_with("h2 without TLS")).cloned().collect::<Vec<_>>(),
    );
    assert!(!last.1.starts_with("200 {"), "{last:?}");
    assert!(!site.web(EVIL).iter().any(|line| line["target"] == "/reflect?shared"));
    assert!(site.queries("cdn.evil.test").iter().all(|query| query["server"] != DNS.to_string()));
}
