//! What a session answers to lines of all sorts.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::raw::{Raw, text};
use crate::{MAX_LINE, MAX_REQUESTS};

#[tokio::test]
async fn garbage_is_answered_and_the_session_lives_on() {
    let mut raw = Raw::start();
    let lines = [
        ("nonsense", -32700, Value::Null),
        ("{\"jsonrpc\":\"2.0\"", -32700, Value::Null),
        ("[]", -32600, Value::Null),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"status"}]"#, -32600, Value::Null),
        ("7", -32600, Value::Null),
        (r#"{"id":5,"method":"status"}"#, -32600, json!(5)),
        (r#"{"jsonrpc":"1.0","id":5,"method":"status"}"#, -32600, json!(5)),
        (r#"{"jsonrpc":"2.0","id":"a"}"#, -32600, json!("a")),
        (r#"{"jsonrpc":"2.0","id":6,"method":7}"#, -32600, json!(6)),
        (r#"{"jsonrpc":"2.0","id":null,"method":"status"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"status"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"status"}"#, -32600, Value::Null),
        (r#"{"jsonrpc":"2.0","id":8,"method":"status","params":[1]}"#, -32602, json!(8)),
        (r#"{"jsonrpc":"2.0","id":9,"method":"nothing"}"#, -32601, json!(9)),
        (r#"{"jsonrpc":"2.0","id":9,"method":"create","params":{}}"#, -32601, json!(9)),
        (r#"{"jsonrpc":"2.0","id":10,"method":"exec"}"#, -32602, json!(10)),
        (
            r#"{"jsonrpc":"2.0","id":11,"method":"exec_pipe.stdin","params":{"id":1,"data":"!"}}"#,
            -32602,
            json!(11),
        ),
        (r#"{"jsonrpc":"2.0","id":12,"method":"close","params":{"timeout_seconds":-1}}"#, -32602, json!(12)),
    ];
    for (line, code, id) in lines {
        raw.line(line).await;
        let answer = raw.next().await.unwrap();
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &id), "{line}: {answer}");
        assert!(answer["error"]["data"]["kind"].is_string(), "{answer}");
    }
    // These ask for nothing.
    for line in ["", "  ", r#"{"jsonrpc":"2.0","method":"status"}"#, r#"{"jsonrpc":"2.0","method":"no"}"#] {
        raw.line(line).await;
    }
    raw.line(" {\"method\":\"st\\u0061tus\",\"id\":\"x\",\"jsonrpc\":\"2.0\",\"params\":null} \r").await;
    assert_eq!(raw.answer("x").await.0["result"]["id"], "vm-00000001");
}

#[tokio::test]
async fn a_line_over_the_limit_ends_the_session() {
    let mut raw = Raw::start();
    let piece = vec![b'x'; 1024 * 1024];
    for _ in 0..=MAX_LINE / piece.len() {
        if raw.writer.write_all(&piece).await.is_err() {
            break;
        }
    }
    let answer = raw.next().await.unwrap();
    assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32600), &Value::Null));
    assert_eq!(raw.next().await, None);
    raw.session.await.unwrap();
}

#[tokio::test]
async fn an_identifier_is_free_only_after_its_answer() {
    let mut raw = Raw::start();
    raw.ask(1, "exec_pipe", json!({ "command": "cat" })).await;
    for method in ["exec", "exec_pipe.stdin_eof", "cancel"] {
        raw.ask(1, method, json!({ "command": "true", "id": 1 })).await;
        let (answer, _) = raw.answer(1).await;
        assert_eq!(
            (&answer["error"]["code"], &answer["error"]["data"]["kind"]),
            (&json!(-32600), &json!("conflict"))
        );
    }
    raw.notify("exec_pipe.stdin_eof", json!({ "id": 1 })).await;
    assert_eq!(raw.answer(1).await.0["result"]["exit_code"], 0);
    raw.ask(1, "exec", json!({ "command": "true" })).await;
    assert_eq!(raw.answer(1).await.0["result"]["exit_code"], 0);
}

#[tokio::test]
async fn requests_in_flight_have_a_limit() {
    let mut raw = Raw::start();
    for id in 0..MAX_REQUESTS {
        raw.ask(id, "log_stream", json!({})).await;
    }
    raw.ask("over", "status", json!({})).await;
    let (answer, _) = raw.answer("over").await;
    assert_eq!(answer["error"]["data"]["kind"], "limit_exceeded");
    raw.ask("cancel", "cancel", json!({ "id": 0 })).await;
    raw.answer(0).await;
    raw.ask("now", "status", json!({})).await;
    assert!(raw.answer("now").await.0["result"].is_object());
}

#[tokio::test]
async fn the_log_comes_whole_or_as_it_grows() {
    let mut raw = Raw::start();
    raw.ask(1, "log", json!({})).await;
    assert_eq!(text(&raw.answer(1).await.0["result"]["content"]), "first line\nsecond line\n");
    raw.ask(2, "log_stream", json!({})).await;
    let mut log = String::new();
    while log != "first line\nsecond line\ngrown\n" {
        let line = raw.next().await.unwrap();
        assert_eq!((&line["method"], &line["params"]["id"]), (&json!("log_stream.data"), &json!(2)));
        log.push_str(&text(&line["params"]["data"]));
    }
    raw.notify("cancel", json!({ "id": 2 })).await;
    assert_eq!(raw.answer(2).await.0["error"]["code"], -32003);
}

#[tokio::test]
async fn close_is_answered_before_the_session_ends() {
    let mut raw = Raw::start();
    raw.ask(1, "close", json!({ "timeout_seconds": 666 })).await;
    assert_eq!(raw.answer(1).await.0["error"]["code"], -32000);
    raw.ask(2, "close", json!({ "timeout_seconds": 1.5 })).await;
    assert_eq!(raw.answer(2).await.0["result"], json!({}));
    assert_eq!(raw.next().await, None);
    assert_eq!(*raw.host.grace.lock().unwrap(), Some(std::time::Duration::from_millis(1500)));
    raw.session.await.unwrap();
}

#[tokio::test]
async fn new_forwards_replace_the_earlier_ones() {
    let mut raw = Raw::start();
    let mut before = None;
    for id in 1..4 {
        let forwards = json!({ "forwards": [{ "local_port": 0, "remote_port": 80 + id }] });
        raw.ask(id, "port_forward", forwards).await;
        let answer = raw.answer(id).await.0;
        let [binding] = &answer["result"]["bindings"].as_array().unwrap()[..] else { panic!("{answer}") };
        assert_eq!((&binding["address"], &binding["remote_port"]), (&json!("127.0.0.1"), &json!(80 + id)));
        let port = binding["local_port"].as_u64().unwrap();
        assert!(super::is_published(port));
        if let Some(before) = before.replace(port) {
            super::eventually(|| !super::is_published(before)).await;
        }
    }
    // One that cannot be had changes nothing.
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    raw.ask(9, "port_forward", json!({ "forwards": [{ "local_port": port, "remote_port": 1 }] })).await;
    let error = raw.answer(9).await.0["error"].clone();
    assert_eq!((&error["code"], &error["data"]["kind"]), (&json!(-32602), &json!("conflict")));
    assert!(super::is_published(before.unwrap()));
}
