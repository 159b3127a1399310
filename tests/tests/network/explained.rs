//! Every refusal says why: to the guest, in the log, and before anything runs.

use harness::cache::CLIENTS;
use harness::{Matchlock, Sandbox, Site};
use serde_json::Value;

#[test]
fn the_guest_hears_what_was_refused_and_no_more_than_it_knows() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let flags = ["--allow-host", "www.good.test", "--allow-host", "secret-partner.example.com"];
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &flags);
    for url in ["http", "https"] {
        let line = format!(
            "curl -sS -w '%{{http_code}} %{{content_type}}' -H 'Host: cdn.evil.test' {url}://www.good.test/who"
        );
        let said = sandbox.sh(&line).success().stdout_text();
        let (body, status) = said.split_once('\n').unwrap_or((&said, ""));
        assert!(status.starts_with("403 application/json"), "{said}");
        let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{said}"));
        assert_eq!(body["blocked_by"], "matchlock");
        assert_eq!(body["host"], "cdn.evil.test");
        assert!(body["reason"].is_string(), "{body}");
        assert!(!said.contains("secret-partner"), "{said}");
    }
}

#[test]
fn the_log_counts_and_names_the_flags_that_would_have_let_it_through() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "www.good.test"]);
    let _ = sandbox
        .sh("for n in 1 2 3; do curl -sS https://www.good.test/hello; done; curl -sS http://evil.test/; \
         curl -sS https://api.good.test/reflect; curl -sS --max-time 20 http://45.33.7.15/");
    let log = sandbox.command(&["policy", "log"], &[]).success().stdout_text();
    let row = |host: &str, outcome: &str| {
        let found = log.lines().find(|line| line.starts_with(outcome) && line.contains(host));
        found.unwrap_or_else(|| panic!("no {outcome} {host} in:\n{log}")).to_owned()
    };
    assert!(row("www.good.test:443", "allowed").split_whitespace().any(|word| word == "3"), "{log}");
    let _ = (row("evil.test", "denied"), row("api.good.test", "denied"));
    let flags = log.lines().last().unwrap_or_default();
    for flag in ["--allow-host evil.test", "--allow-host api.good.test"] {
        assert!(flags.contains(flag), "{flag} in {flags}");
    }
    assert!(!flags.contains("www.good.test"), "{flags}");
    let denied = sandbox.command(&["policy", "log", "--denied", "--json"], &[]).success().stdout_text();
    let denied: Value = serde_json::from_str(&denied).expect("one object");
    assert!(
        denied["allow_hosts"].as_array().is_some_and(|hosts| hosts.iter().any(|host| host == "evil.test")),
        "{denied}"
    );
    // The very flags let it through.
    let allowed: Vec<&str> = flags.split_whitespace().filter(|word| word.contains('.')).collect();
    let again = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", &allowed.join(",")]);
    let _ = again.sh("curl -fsS http://evil.test/reflect && curl -fsS https://api.good.test/reflect && curl -fsS http://45.33.7.15/reflect").success();
}

fn check(matchlock: &Matchlock, flags: &[&str]) -> (Option<i32>, String) {
    let output = matchlock.run(&[&["policy", "check"], flags].concat());
    (output.code, output.stdout_text() + &output.stderr_text())
}

#[test]
fn a_check_says_what_would_happen_without_a_sandbox() {
    let matchlock = Matchlock::without_images();
    let secret = ["--secret", "KEY=hunter2@api.example.com", "--secret-placeholder", "KEY=PLACEHOLDER"];
    let cases: &[(&[&str], i32, &str)] = &[
        (&["https://example.com/"], 0, "open"),
        (&["--allow-host", "*.example.com", "https://api.example.com/v1"], 0, "*.example.com"),
        (&["--allow-host", "*.example.com", "https://example.com/"], 1, "host_not_allowed"),
        (&["--allow-host", "example.com:8443", "https://example.com:8443/"], 0, "example.com:8443"),
        (&["--allow-host", "example.com:8443", "https://example.com/"], 1, "--allow-host example.com"),
        (&["http://10.0.0.1/"], 1, "private_address"),
        (&["--allow-host", "10.0.0.1", "http://10.0.0.1/"], 0, "10.0.0.1"),
        (&["--allow-host", "db.example.com:5432", "tcp://db.example.com:5432"], 0, "db.example.com"),
        (&["--network-intercept", "https://example.com/"], 0, "observed"),
    ];
    for (flags, code, text) in cases {
        let (came, said) = check(&matchlock, flags);
        assert_eq!(came, Some(*code), "{flags:?}: {said}");
        assert!(said.contains(text), "{flags:?}: {text:?} in {said}");
    }
    let with_header = |url: &str| {
        check(&matchlock, &[&secret[..], &["-H", "Authorization: Bearer PLACEHOLDER", url]].concat())
    };
    let (code, said) = with_header("https://api.example.com/");
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    let (code, said) = with_header("http://api.example.com/");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("plain_http_secret"), "{said}");
    for wrong in [
        &["ftp://example.com/"][..],
        &["--allow-host", "a b", "https://example.com/"],
        &["--secret", "K@", "https://example.com/"],
        &[],
    ] {
        assert_eq!(check(&matchlock, wrong).0, Some(2), "{wrong:?}");
    }
}

#[test]
fn flags_that_make_no_sense_are_refused_before_anything_starts() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let cases: &[&[&str]] = &[
        &["--allow-host", "a b"],
        &["--allow-host", "https://example.com"],
        &["--allow-host", "example.com:0"],
        &["--allow-host", "example.com:99999"],
        &["--allow-host", "10.0.0.0/99"],
        &["--add-host", "nowhere"],
        &["--dns-servers", "name.example.com"],
        &["--mtu", "1"],
        &["--mtu", "99999"],
        &["--network-rules", "/nonexistent"],
    ];
    for case in cases {
        let output = matchlock.run(&[&["run"], *case, &["--image", CLIENTS, "--", "true"]].concat());
        assert!(
            [Some(2), Some(125)].contains(&output.code),
            "{case:?}: {:?} {}",
            output.code,
            output.stderr_text()
        );
    }
    matchlock.assert_nothing_left();
}

#[test]
fn mtu_is_as_asked() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--mtu", "1280"]);
    assert_eq!(sandbox.sh("cat /sys/class/net/eth0/mtu").success().stdout_text(), "1280\n");
    let line = "curl -ksS -r 0-3000000 https://www.good.test/zeros | wc -c; head -c 3000000 /dev/zero | curl -ksS -T - https://api.good.test/reflect | grep -c 3000000";
    assert_eq!(sandbox.sh(line).success().stdout_text(), "3000001\n1\n");
}
