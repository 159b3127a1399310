//! Commands: their output, input, ends, and who ends them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::raw::{Raw, data, text};

fn pipe(id: i64, command: &str) -> (i64, Value) {
    (id, json!({ "id": id, "command": command }))
}

#[tokio::test]
async fn exec_gives_all_output_and_the_exit_code() {
    let mut raw = Raw::start();
    let command = "printf out; printf err >&2; printf \"$A\"; exit 3";
    raw.ask("one", "exec", json!({ "command": command, "env": { "A": "b" }, "user": null, "later": 1 }))
        .await;
    let (answer, before) = raw.answer("one").await;
    assert_eq!(before, [] as [Value; 0]);
    let result = &answer["result"];
    assert_eq!(result["exit_code"], 3);
    assert_eq!((text(&result["stdout"]), text(&result["stderr"])), ("outb".into(), "err".into()));
    assert!(result["duration_ms"].is_u64());
}

#[tokio::test]
async fn argv_is_seen_by_no_shell() {
    let mut raw = Raw::start();
    raw.ask(1, "exec", json!({ "argv": ["printf", "%s|", "a b", "$HOME"] })).await;
    assert_eq!(text(&raw.answer(1).await.0["result"]["stdout"]), "a b|$HOME|");
}

#[tokio::test]
async fn a_signal_is_128_and_its_number() {
    let mut raw = Raw::start();
    raw.ask(1, "exec_stream", json!({ "command": "kill -9 $$" })).await;
    assert_eq!(raw.answer(1).await.0["result"]["exit_code"], 137);
}

#[tokio::test]
async fn a_command_that_cannot_start_says_so_with_an_exit_code() {
    let mut raw = Raw::start();
    raw.ask(1, "exec", json!({ "argv": ["/no/such/program"] })).await;
    let error = raw.answer(1).await.0["error"].clone();
    assert_eq!(error["code"], -32001);
    assert_eq!(error["data"]["exit_code"], 127);
    assert_eq!(error["data"]["kind"], "not_found");
    assert!(error["data"]["hint"].is_string());
}

#[tokio::test]
async fn collected_output_has_a_limit() {
    let mut raw = Raw::start();
    raw.ask(1, "exec", json!({ "command": "head -c 34000000 /dev/zero; sleep 100" })).await;
    let error = raw.answer(1).await.0["error"].clone();
    assert_eq!((&error["code"], &error["data"]["kind"]), (&json!(-32001), &json!("limit_exceeded")));
    assert!(error["data"]["hint"].as_str().unwrap().contains("exec_stream"));
    raw.host.running(0).await;
}

#[tokio::test]
async fn requests_run_at_the_same_time() {
    let mut raw = Raw::start();
    raw.ask(1, "exec_pipe", json!({ "command": "cat" })).await;
    for id in 2..10 {
        raw.ask(id, "exec", json!({ "command": format!("echo {id}") })).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 8 {
        let line = raw.next().await.unwrap();
        assert!(line["error"].is_null(), "{line}");
        seen.extend(line["id"].as_i64());
    }
    seen.sort_unstable();
    assert_eq!(seen, (2..10).collect::<Vec<_>>(), "the first waits for its input");
    raw.notify("exec_pipe.stdin_eof", json!({ "id": 1 })).await;
    assert_eq!(raw.answer(1).await.0["result"]["exit_code"], 0);
}

#[tokio::test]
async fn input_arrives_in_order_as_requests_and_as_notifications() {
    let mut raw = Raw::start();
    let (id, params) = pipe(1, "cat; echo done >&2");
    raw.ask(id, "exec_pipe", params).await;
    // Before it is ready, too.
    let mut expected = String::new();
    for number in 0..200 {
        let piece = format!("{number} ");
        let params = json!({ "id": 1, "data": data(&piece) });
        if number % 3 == 0 {
            raw.ask(1000 + number, "exec_pipe.stdin", params).await;
        } else {
            raw.notify("exec_pipe.stdin", params).await;
        }
        expected.push_str(&piece);
    }
    raw.notify("exec_pipe.stdin_eof", json!({ "id": 1 })).await;
    let (answer, before) = raw.answer(1).await;
    assert_eq!(answer["result"]["exit_code"], 0);
    let first = before.iter().find(|line| line["method"].is_string()).unwrap();
    assert_eq!((&first["method"], &first["params"]), (&json!("exec_pipe.ready"), &json!({ "id": 1 })));
    assert_eq!(Raw::data(&before, "exec_pipe.stdout"), expected);
    assert_eq!(Raw::data(&before, "exec_pipe.stderr"), "done\n");
    let receipts = before.iter().filter(|line| line["result"] == json!({})).count();
    assert!(receipts <= 67);
}

#[tokio::test]
async fn input_for_a_command_that_has_ended_is_no_error() {
    let mut raw = Raw::start();
    raw.ask(1, "exec_pipe", json!({ "command": "exit 0" })).await;
    for id in 2..20 {
        raw.ask(id, "exec_pipe.stdin", json!({ "id": 1, "data": data("late") })).await;
    }
    let mut answered = 0;
    while answered < 19 {
        let line = raw.next().await.unwrap();
        answered += usize::from(!line["id"].is_null());
        assert!(line["error"].is_null(), "{line}");
    }
    raw.ask(20, "exec_pipe.stdin_eof", json!({ "id": 1 })).await;
    assert_eq!(raw.answer(20).await.0["result"], json!({}));
    raw.notify("exec_tty.resize", json!({ "id": "never", "rows": 1, "cols": 2 })).await;
    raw.ask(21, "status", json!({})).await;
    assert_eq!(raw.answer(21).await.0["result"]["image"], "test");
}

#[tokio::test]
async fn signals_and_sizes_overtake_input_that_is_not_read() {
    let mut raw = Raw::start();
    let command = "trap 'echo caught; exit 5' TERM; echo set; while :; do sleep 0.05; done";
    raw.ask(1, "exec_tty", json!({ "command": command, "rows": 10, "cols": 20 })).await;
    while raw.next().await.unwrap()["method"] != "exec_tty.stdout" {}
    let much = data(&"x".repeat(4_000_000));
    raw.ask(2, "exec_tty.stdin", json!({ "id": 1, "data": much })).await;
    raw.notify("exec_tty.resize", json!({ "id": 1, "rows": 3, "cols": 4 })).await;
    raw.notify("exec_tty.resize", json!({ "id": 1, "rows": 5, "cols": 6 })).await;
    raw.notify("exec_tty.signal", json!({ "id": 1, "signal": 15 })).await;
    let (answer, before) = raw.answer(1).await;
    assert_eq!(answer["result"]["exit_code"], 5);
    assert!(Raw::data(&before, "exec_tty.stdout").contains("caught"));
    let resizes: Vec<_> = raw.host.guest.resizes().iter().map(|size| (size.rows, size.columns)).collect();
    assert_eq!(resizes, [(3, 4), (5, 6)]);
    // The input is answered, too, though nobody took it.
    match before.iter().find(|line| line["id"] == 2) {
        Some(answer) => assert_eq!(answer["result"], json!({})),
        None => assert_eq!(raw.answer(2).await.0["result"], json!({})),
    }
}

#[tokio::test]
async fn a_cancelled_command_gets_sigterm_and_its_request_an_error() {
    let mut raw = Raw::start();
    let command = "trap 'echo bye; exit 0' TERM; echo set; while :; do sleep 0.05; done";
    raw.ask(1, "exec_stream", json!({ "command": command })).await;
    while raw.next().await.unwrap()["method"] != "exec_stream.stdout" {}
    raw.ask(2, "cancel", json!({ "id": 1 })).await;
    raw.ask(3, "cancel", json!({ "id": 99 })).await;
    let (answer, before) = raw.answer(1).await;
    assert_eq!(answer["error"]["code"], -32003);
    let cancels: Vec<_> = before.iter().filter(|line| line["id"].is_i64()).collect();
    assert_eq!(
        cancels.iter().map(|line| line["result"]["cancelled"].as_bool()).collect::<Vec<_>>(),
        [Some(true), Some(false)]
    );
    raw.host.running(0).await;
}

#[tokio::test]
async fn a_cancelled_command_that_ignores_sigterm_is_killed() {
    let mut raw = Raw::start();
    raw.ask(1, "exec_stream", json!({ "command": "trap '' TERM; echo set; while :; do sleep 0.05; done" }))
        .await;
    while raw.next().await.unwrap()["method"] != "exec_stream.stdout" {}
    let start = Instant::now();
    raw.notify("cancel", json!({ "id": 1 })).await;
    assert_eq!(raw.answer(1).await.0["error"]["code"], -32003);
    assert!(start.elapsed() > Duration::from_secs(4), "it had time to end by itself");
    raw.host.running(0).await;
}

#[tokio::test]
async fn a_client_that_is_gone_ends_what_it_started() {
    let mut raw = Raw::start();
    raw.ask(1, "exec_stream", json!({ "command": "sleep 1000" })).await;
    raw.ask(2, "exec_pipe", json!({ "command": "cat /dev/zero" })).await;
    raw.ask(3, "port_forward", json!({ "forwards": [{ "local_port": 0, "remote_port": 2 }] })).await;
    let port = raw.answer(3).await.0["result"]["bindings"][0]["local_port"].as_u64().unwrap();
    raw.host.running(2).await;
    let Raw { reader, writer, session, host } = raw;
    assert!(super::is_published(port));
    drop((reader, writer));
    host.running(0).await;
    session.await.unwrap();
    super::eventually(|| !super::is_published(port)).await;
}

#[tokio::test]
async fn a_client_that_dies_behind_unread_input_is_noticed() {
    let mut raw = Raw::start();
    raw.ask(1, "exec_pipe", json!({ "command": "sleep 1000" })).await;
    raw.host.running(1).await;
    let piece = data(&"x".repeat(8_000_000));
    // More than may wait: the session has stopped taking lines when the client dies.
    for _ in 0..9 {
        let line =
            json!({ "jsonrpc": "2.0", "method": "exec_pipe.stdin", "params": { "id": 1, "data": piece } });
        let line = format!("{line}\n");
        let write = tokio::io::AsyncWriteExt::write_all(&mut raw.writer, line.as_bytes());
        if timeout(Duration::from_secs(2), write).await.is_err() {
            break;
        }
    }
    let Raw { reader, writer, session, host } = raw;
    drop((reader, writer));
    host.running(0).await;
    session.await.unwrap();
}

#[tokio::test]
async fn a_slow_reader_makes_the_command_wait() {
    let mut raw = Raw::start();
    let dir = tempfile::tempdir().unwrap();
    let count = dir.path().join("count");
    let command =
        format!("i=0; while :; do head -c 65536 /dev/zero; i=$((i+1)); echo $i > {}; done", count.display());
    raw.ask(1, "exec_stream", json!({ "command": command })).await;
    let written = || std::fs::read_to_string(&count).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let mut last = None;
    for round in 0.. {
        assert!(round < 20, "it never waits");
        sleep(Duration::from_millis(700)).await;
        let now = written();
        if now.is_some() && now == last {
            break;
        }
        last = now;
    }
    let bytes = written().unwrap() * 65536;
    assert!(bytes < 6 * 1024 * 1024, "{bytes} bytes are kept somewhere");
    // It can be cancelled all the same, without being read to its end first.
    raw.notify("cancel", json!({ "id": 1 })).await;
    timeout(Duration::from_secs(5), raw.host.running(0)).await.expect("SIGTERM was enough");
    assert_eq!(raw.answer(1).await.0["error"]["code"], -32003);
}

#[tokio::test]
async fn a_sandbox_that_is_gone_fails_its_commands_not_the_session() {
    let mut raw = Raw::start();
    raw.ask(1, "exec_stream", json!({ "command": "sleep 1000" })).await;
    raw.ask(2, "exec", json!({ "command": "sleep 1000" })).await;
    raw.host.running(2).await;
    raw.host.guest.die();
    for _ in 1..=2 {
        let error = raw.next().await.unwrap()["error"].clone();
        assert_eq!((&error["code"], &error["data"]["kind"]), (&json!(-32000), &json!("vm")));
    }
    raw.ask(3, "exec", json!({ "command": "true" })).await;
    assert_eq!(raw.answer(3).await.0["error"]["code"], -32000);
}

#[tokio::test]
async fn allowed_hosts_come_and_go() {
    let mut raw = Raw::start();
    raw.ask(1, "allow_list_add", json!({ "hosts": ["a.example", "*.b.example"] })).await;
    let hosts = json!(["a.example", "*.b.example"]);
    assert_eq!(raw.answer(1).await.0["result"], json!({ "added": hosts, "allowed_hosts": hosts }));
    raw.ask(2, "allow_list_delete", json!({ "hosts": ["a.example"] })).await;
    assert_eq!(raw.answer(2).await.0["result"], json!({ "removed": ["a.example"], "allowed_hosts": [] }));
    raw.ask(3, "allow_list_add", json!({ "hosts": "a.example" })).await;
    assert_eq!(raw.answer(3).await.0["error"]["code"], -32602);
}
