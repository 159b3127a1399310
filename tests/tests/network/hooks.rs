//! Row 12 of the promises, and what rules do to requests and responses.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use harness::cache::CLIENTS;
use harness::{Matchlock, Sandbox, Site};
use serde_json::{Value, json};

/// A client that answers callbacks: by their identifier, with a line as it is; `hang` never.
struct Client {
    socket: PathBuf,
    questions: Arc<Mutex<Vec<Value>>>,
}

impl Client {
    fn start(matchlock: &Matchlock) -> Self {
        let socket = matchlock.user_home().join("callback.sock");
        let listener = UnixListener::bind(&socket).expect("the directory is ours");
        let questions = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&questions);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let asked = Arc::clone(&asked);
                thread::spawn(move || {
                    let mut line = String::new();
                    BufReader::new(&stream).read_line(&mut line).expect("a question is a line");
                    let question: Value = serde_json::from_str(&line).expect("a question is JSON");
                    let reply = match question["callback_id"].as_str().expect("it has one") {
                        "hang" => return thread::sleep(std::time::Duration::from_secs(60)),
                        "nonsense" => "{{{".to_owned(),
                        "nothing" => String::new(),
                        "error" => json!({ "error": "no" }).to_string(),
                        "unknown action" => json!({ "action": "perhaps" }).to_string(),
                        "endless" => "x".repeat(80 << 20),
                        "block" => json!({ "action": "block" }).to_string(),
                        "change" => json!({ "request": { "headers": { "x-only": "this" }, "path": "/reflect/changed", "query": {} } }).to_string(),
                        "body" => json!({ "response": { "set_body_base64": "bmV3IGJvZHk=" } }).to_string(),
                        _ => json!({}).to_string(),
                    };
                    asked.lock().expect("no holder of the lock panics").push(question);
                    let _ = (&stream).write_all(format!("{reply}\n").as_bytes());
                });
            }
        });
        Self { socket, questions }
    }
}

/// A sandbox with rules.
fn ruled<'a>(matchlock: &'a Matchlock, rules: &Value, flags: &[&str]) -> Sandbox<'a> {
    let file = matchlock.user_home().join("rules.json");
    std::fs::write(&file, rules.to_string()).expect("the directory is ours");
    let all = [
        &["--allow-host", "*.good.test", "--network-rules", file.to_str().expect("paths here are UTF-8")],
        flags,
    ]
    .concat();
    Sandbox::start(matchlock, CLIENTS, &all)
}

#[test]
fn row_12_callback_that_is_absent_slow_failing_or_talks_nonsense_denies() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let client = Client::start(&matchlock);
    let bad = ["hang", "nonsense", "nothing", "error", "unknown action", "endless", "block"];
    let rule = |id: &&str| json!({ "path": format!("/reflect/{}", id.replace(' ', "-")), "callback_id": id, "timeout_ms": 1500 });
    let after = |id: &&str| json!({ "phase": "after", "path": format!("/reflect/after-{}", id.replace(' ', "-")), "callback_id": id, "timeout_ms": 1500 });
    let rules: Vec<Value> =
        bad.iter().map(rule).chain(bad.iter().map(after)).chain([rule(&"fine")]).collect();
    let sandbox = ruled(&matchlock, &json!({ "rules": rules, "callback_socket": client.socket }), &[]);
    let fetch = |path: &str| {
        let line = format!(
            "curl -sS -o /tmp/b -w '%{{http_code}} ' https://web.good.test/reflect/{path}; cat /tmp/b"
        );
        sandbox.sh(&line).stdout_text()
    };
    assert!(fetch("fine").starts_with("200 "));
    assert!(fetch("unruled").starts_with("200 "));
    for id in bad.map(|id| id.replace(' ', "-")) {
        for path in [id.clone(), format!("after-{id}")] {
            let came = fetch(&path);
            assert!(came.starts_with("403 ") && came.contains("blocked_by"), "{path}: {came}");
        }
        assert!(site.requests(&format!("/reflect/{id}")).is_empty(), "{id} reached the server");
    }
    std::fs::remove_file(&client.socket).unwrap();
    assert!(fetch("fine").starts_with("403 "), "nobody is there to ask");
}

#[test]
fn rules_change_requests_and_responses_and_see_no_secret() {
    let site = Site::shared();
    let value = "sk-hooks-0123456789";
    let matchlock = site.matchlock().with_images(&[CLIENTS]).with_variable("KEY", value);
    let client = Client::start(&matchlock);
    let rules = json!({ "callback_socket": client.socket, "rules": [
        { "name": "no deleting", "methods": ["DELETE"], "action": "block" },
        { "hosts": ["api.*"], "path": "/reflect/set*", "set_headers": { "x-set": "yes" }, "delete_headers": ["user-agent"],
          "set_query": { "a": "b" }, "delete_query": ["gone"], "rewrite_path": "/reflect/rewritten" },
        { "path": "/reflect/asked", "callback_id": "change" },
        { "phase": "after", "path": "/reflect/words*", "set_response_headers": { "x-after": "1" }, "delete_response_headers": ["x-got-accept"],
          "body_replacements": [{ "find": "curl", "replace": "CURL!" }] },
        { "phase": "after", "path": "/sse", "body_replacements": [{ "find": "event-secret", "replace": "hidden" }] },
        { "phase": "after", "path": "/reflect/new", "callback_id": "body" },
    ] });
    let sandbox = ruled(&matchlock, &rules, &["--secret", "KEY@web.good.test,api.good.test"]);
    let curl =
        |words: &str| sandbox.sh(&format!("curl -sS -i -H \"x-key: $KEY\" {words}")).success().stdout_text();
    let said = curl("-X DELETE https://web.good.test/reflect/x");
    assert!(said.contains(" 403") && said.contains("rule_block"), "{said}");
    let said = curl("'https://api.good.test/reflect/set?gone=1&kept=2'");
    assert!(
        said.contains("/reflect/rewritten?")
            && said.contains("kept=2")
            && said.contains("a=b")
            && !said.contains("gone"),
        "{said}"
    );
    assert!(said.to_lowercase().contains("x-set") && !said.to_lowercase().contains("user-agent"), "{said}");
    let said = curl("'https://web.good.test/reflect/asked?q=1'");
    assert!(
        said.contains("/reflect/changed\"") && said.contains("x-only") && !said.contains("x-key"),
        "{said}"
    );
    for url in [
        "https://web.good.test/reflect/words",
        "'https://web.good.test/reflect/words?as=gzip' --compressed",
        "'https://api.good.test/reflect/words?as=drip'",
    ] {
        let said = curl(url);
        assert!(
            said.contains("CURL!/")
                && !said.contains("\"curl")
                && said.contains("x-after: 1")
                && !said.contains("x-got-accept:"),
            "{url}: {said}"
        );
    }
    let said = curl("-H 'Authorization: event-secret' https://web.good.test/sse");
    assert!(said.matches(" hidden").count() == 3 && !said.contains("event-secret"), "{said}");
    assert!(curl("https://web.good.test/reflect/new").ends_with("new body"));
    let questions = client.questions.lock().unwrap().clone();
    assert_eq!(questions.len(), 2, "{questions:?}");
    assert_eq!(
        (&questions[0]["method"], &questions[0]["path"], &questions[0]["host"]),
        (&"GET".into(), &"/reflect/asked".into(), &"web.good.test".into())
    );
    let questions = json!(questions).to_string();
    assert!(!questions.contains(value) && questions.contains("SANDBOX_SECRET_"), "{questions}");
}
