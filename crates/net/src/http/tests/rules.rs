//! Rules and callbacks over whole connections.

use std::path::Path;
use std::time::Duration;

use api::hook::HookRequest;
use api::network::{Action, Phase, Replacement, RuleSpec};
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;

use super::{PLACEHOLDER, Pieces, VALUE, World, hello, reflect, request, text};

fn replacing(find: &str, replace: &str) -> RuleSpec {
    RuleSpec {
        phase: Phase::After,
        body_replacements: vec![Replacement { find: find.to_owned(), replace: replace.to_owned() }],
        ..RuleSpec::default()
    }
}

async fn answer(world: &World, host: &str) -> (StatusCode, http::HeaderMap, String) {
    let mut guest = world.http1(host).await;
    let sent = request(host, "/v1?a=1").header("x-key", "1").body(Pieces::of(&[])).unwrap();
    let (parts, body) = guest.send_request(sent).await.unwrap().into_parts();
    (parts.status, parts.headers, text(body).await)
}

#[tokio::test]
async fn a_rule_blocks_and_is_named_to_the_user_but_not_to_the_guest() {
    let rule = RuleSpec { name: Some("nothing".to_owned()), action: Action::Block, ..RuleSpec::default() };
    let world = World::with(None, vec![rule], hello);
    let (status, _, body) = answer(&world, "other.example").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("rule_block") && !body.contains("nothing"));
    assert_eq!(world.events(1).await[0].rule.as_deref(), Some("rule nothing"));
    assert_eq!(world.connected(), []);
}

#[tokio::test]
async fn a_whole_body_is_changed_and_its_length_corrected() {
    let world = World::with(None, vec![replacing("hello", "good morning")], |_| async {
        Response::builder().header("content-length", "5").body(Pieces::of(&[b"hel", b"lo"])).unwrap()
    });
    let (_, headers, body) = answer(&world, "other.example").await;
    assert_eq!(body, "good morning");
    assert_eq!(headers["content-length"], "12");
}

#[tokio::test]
async fn events_are_changed_as_they_come() {
    let (sender, pieces) = Pieces::channel();
    let body = std::sync::Mutex::new(Some(pieces));
    let world = World::with(None, vec![replacing("cat", "dog")], move |_| {
        let body = body.lock().unwrap().take().unwrap();
        async { Response::builder().header("content-type", "text/event-stream").body(body).unwrap() }
    });
    let mut guest = world.http1("own.example").await;
    let sent = request("own.example", "/").body(Pieces::of(&[])).unwrap();
    let mut events = guest.send_request(sent).await.unwrap().into_body();
    for (event, expected) in [
        ("data: cat\n\n", "data: dog\n\n"),
        ("data: sk-live/Value+1&2=3\n\n", &format!("data: {PLACEHOLDER}\n\n")),
    ] {
        sender.send(Frame::data(Bytes::from_static(event.as_bytes()))).await.unwrap();
        assert_eq!(events.frame().await.unwrap().unwrap().into_data().unwrap(), expected);
    }
    drop(sender);
    assert!(events.frame().await.is_none());
}

/// A client that gives one answer to all questions, and keeps them.
fn client(socket: &Path, reply: Vec<u8>) -> tokio::sync::mpsc::UnboundedReceiver<HookRequest> {
    let listener = UnixListener::bind(socket).unwrap();
    let (asked, questions) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let _ = asked.send(serde_json::from_str(&line).unwrap());
            let _ = stream.write_all(&reply).await;
        }
    });
    questions
}

fn asking(phase: Phase, timeout_ms: Option<u64>) -> RuleSpec {
    RuleSpec { phase, callback_id: Some("hook".to_owned()), timeout_ms, ..RuleSpec::default() }
}

async fn with_client(reply: &str, rule: RuleSpec) -> (StatusCode, String, Option<HookRequest>) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("hook");
    let mut questions = client(&socket, reply.as_bytes().to_vec());
    let mut world = World::with(None, vec![rule], reflect);
    world.callback_socket = Some(socket);
    let mut guest = world.http1("own.example").await;
    let sent = request("own.example", "/v1?a=1").header("x-key", PLACEHOLDER).body(Pieces::of(&[])).unwrap();
    let response = guest.send_request(sent).await.unwrap();
    let status = response.status();
    (status, text(response.into_body()).await, questions.try_recv().ok())
}

#[tokio::test]
async fn a_callback_changes_a_request_and_sees_no_value() {
    let reply = r#"{"request":{"headers":{"X-New":["1"]},"query":{"b":"2"},"path":"/v2"}}"#.to_owned() + "\n";
    let (status, body, asked) = with_client(&reply, asking(Phase::Before, None)).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.starts_with("GET /v2?b=2\n") && body.contains("x-new: 1\n"), "{body}");
    assert!(!body.contains("x-key"));
    let asked = asked.unwrap();
    assert_eq!((asked.host.as_str(), asked.path.as_str()), ("own.example", "/v1"));
    assert_eq!(asked.request_headers["X-Key"], [PLACEHOLDER]);
}

#[tokio::test]
async fn a_callback_replaces_a_response_and_sees_no_value() {
    let reply = r#"{"action":"mutate","response":{"headers":{"X-New":["1"]},"set_body_base64":"bmV3"}}"#;
    let (status, body, asked) = with_client(reply, asking(Phase::After, None)).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "new"));
    let asked = asked.unwrap();
    assert_eq!(asked.status_code, 200);
    assert!(!format!("{asked:?}").contains(VALUE));
}

#[tokio::test]
async fn a_callback_that_has_nothing_to_say_allows() {
    for phase in [Phase::Before, Phase::After] {
        for reply in
            ["{}", r#"{"action":"allow"}"#, r#"{"action":null,"request":null,"response":null,"error":""}"#]
        {
            let (status, body, _) = with_client(reply, asking(phase, None)).await;
            assert_eq!(status, StatusCode::OK, "{body}");
        }
    }
}

#[tokio::test]
async fn a_callback_may_leave_out_a_replacement_that_is_empty() {
    let reply = r#"{"response":{"set_body_base64":"YmNh","body_replacements":[{"find":"c"}]}}"#;
    let (status, body, _) = with_client(reply, asking(Phase::After, None)).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "ba"));
}

#[tokio::test]
async fn callbacks_that_fail_or_answer_with_nonsense_deny() {
    let endless = "x".repeat(2 * 1024 * 1024);
    for phase in [Phase::Before, Phase::After] {
        for reply in [
            "",
            "\n",
            "nonsense\n",
            "null\n",
            "[]\n",
            "{\"request\":[],\"response\":[]}\n",
            "{\"action\":\"perhaps\"}\n",
            "{\"action\":\"\"}\n",
            "{\"action\":\"BLOCK\"}\n",
            "{\"decision\":\"block\"}\n",
            "{\"Action\":\"block\"}\n",
            "{\"action\":\"block\",\"action\":\"allow\"}\n",
            "{\"request\":{\"delete_headers\":[\"x-key\"]}}\n",
            "{\"response\":{\"status\":403}}\n",
            "{\"response\":{\"body_replacements\":[{\"find\":\"a\",\"replace\":\"b\",\"regex\":true}]}}\n",
            "{\"error\":\"no\"}\n",
            "{\"request\":{\"headers\":3}}\n",
            "{\"request\":{\"path\":\"x\"},\"response\":{\"set_body_base64\":\"?\"}}\n",
            &endless,
        ] {
            let (status, body, _) = with_client(reply, asking(phase, None)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{phase:?}");
            assert!(body.contains("hook_failed"), "{body}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_does_not_answer_in_time_denies() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("hook");
    let _silent = UnixListener::bind(&socket).unwrap();
    let mut world = World::with(None, vec![asking(Phase::Before, Some(700))], hello);
    world.callback_socket = Some(socket);
    let before = tokio::time::Instant::now();
    let (status, _, body) = answer(&world, "other.example").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("hook_failed"));
    // The clock is the test's own and moves only while all wait.
    assert_eq!(before.elapsed().as_millis() / 100, Duration::from_millis(700).as_millis() / 100);
}

#[tokio::test]
async fn a_callback_without_anybody_to_call_denies() {
    let mut world = World::with(None, vec![asking(Phase::Before, None)], hello);
    world.callback_socket = Some("/nowhere/hook".into());
    let (status, _, body) = answer(&world, "other.example").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("hook_failed"));
    assert_eq!(world.connected(), []);
}
