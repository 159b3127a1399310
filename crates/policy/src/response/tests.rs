use api::hook::{HookReply, ResponseChange, Values};
use api::network::{Action, Phase, Replacement, RuleSpec};
use http::response::{Builder, Parts};
use http::{Request, Response};

use super::{BodyPlan, Coding, ResponsePlan, ResponseQuestion, ResponseVerdict};
use crate::denial::Denial;
use crate::policy::Policy;
use crate::request::tests::{PLACEHOLDER, VALUE, cleared, parts, policy, tls};
use crate::request::{Exchange, HookFailure, Sent};

fn sent_to(policy: &Policy, host: &str, method: &str) -> Sent {
    let request = Request::builder().method(method).uri("/v1").header("host", host);
    cleared(Exchange::begin(policy, parts(request), &tls(host))).into_parts().1
}

fn head(response: Builder) -> Parts {
    response.body(()).unwrap().into_parts().0
}

fn plan(verdict: ResponseVerdict) -> ResponsePlan {
    match verdict {
        ResponseVerdict::Forward(plan) => *plan,
        ResponseVerdict::Deny(denial) => panic!("denied: {denial:?}"),
        ResponseVerdict::Ask(_) => panic!("asked"),
    }
}

fn denied(verdict: ResponseVerdict) -> Denial {
    match verdict {
        ResponseVerdict::Deny(denial) => denial,
        ResponseVerdict::Forward(_) => panic!("forwarded"),
        ResponseVerdict::Ask(_) => panic!("asked"),
    }
}

fn asked(verdict: ResponseVerdict) -> ResponseQuestion {
    match verdict {
        ResponseVerdict::Ask(question) => *question,
        ResponseVerdict::Forward(_) => panic!("forwarded"),
        ResponseVerdict::Deny(denial) => panic!("denied: {denial:?}"),
    }
}

fn replacing() -> RuleSpec {
    let body_replacements = vec![Replacement { find: "cat".to_owned(), replace: "dog".to_owned() }];
    RuleSpec { phase: Phase::After, body_replacements, ..RuleSpec::default() }
}

fn streamed(body: BodyPlan, pieces: &[&str]) -> String {
    let BodyPlan::Stream(_, mut filter) = body else { panic!("it does not stream") };
    let mut out = Vec::new();
    for piece in pieces {
        filter.feed(piece.as_bytes(), &mut out).unwrap();
    }
    filter.finish(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn nothing_of_a_host_without_secrets_and_rules_is_touched() {
    let response = Response::builder()
        .header("content-length", "7")
        .header("content-encoding", "unheard-of")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("alt-svc", "h3=\":443\"");
    let policy = policy(vec![]);
    let plan = plan(sent_to(&policy, "other.example", "GET").response(head(response)));
    assert!(matches!(plan.body, BodyPlan::AsIs));
    let names: Vec<_> = plan.parts.headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["content-length", "content-encoding"]);
}

#[test]
fn a_reflected_value_becomes_the_placeholder_again() {
    let policy = policy(vec![]);
    let response = Response::builder().header("x-echo", format!("<{VALUE}>")).header("content-length", "7");
    let plan = plan(sent_to(&policy, "own.example", "GET").response(head(response)));
    assert_eq!(plan.parts.headers["x-echo"], format!("<{PLACEHOLDER}>"));
    assert!(!plan.parts.headers.contains_key("content-length"));
    let (one, two) = VALUE.split_at(5);
    assert_eq!(streamed(plan.body, &["got ", one, two, "!"]), format!("got {PLACEHOLDER}!"));
}

#[test]
fn a_value_in_a_header_that_means_nothing_in_a_response_is_hidden() {
    let policy = policy(vec![]);
    for name in ["host", "expect", "trailer", "http2-settings", "max-forwards"] {
        let response = Response::builder().header(name, VALUE);
        let plan = plan(sent_to(&policy, "own.example", "GET").response(head(response)));
        assert_eq!(plan.parts.headers[name], PLACEHOLDER, "{name}");
    }
}

#[test]
fn a_body_that_must_be_read_and_cannot_is_refused() {
    let policy = policy(vec![]);
    for encoding in ["compress", "gzip, exi", "gzip, gzip, gzip, gzip"] {
        let response = Response::builder().header("content-encoding", encoding);
        let denial = denied(sent_to(&policy, "own.example", "GET").response(head(response)));
        assert_eq!(denial.reason.code(), "encoding_unknown");
    }
    let response =
        Response::builder().header("content-encoding", "zstd, identity").header("content-encoding", "br");
    let plan = plan(sent_to(&policy, "own.example", "GET").response(head(response)));
    let BodyPlan::Stream(codings, _) = plan.body else { panic!() };
    assert_eq!(codings, [Coding::Brotli, Coding::Zstd]);
    assert!(!plan.parts.headers.contains_key("content-encoding"));
}

#[test]
fn answers_without_a_body_keep_what_they_say_of_it() {
    let policy = policy(vec![replacing()]);
    for (method, status) in [("HEAD", 200), ("GET", 304), ("GET", 204)] {
        let response = Response::builder().status(status).header("content-length", "7");
        let plan = plan(sent_to(&policy, "own.example", method).response(head(response)));
        assert!(matches!(plan.body, BodyPlan::Empty));
        assert_eq!(plan.parts.headers["content-length"], "7");
    }
}

#[test]
fn replacements_stream_in_events_and_wait_for_all_of_other_bodies() {
    let policy = policy(vec![replacing()]);
    let response = Response::builder().header("content-type", "text/event-stream; charset=utf-8");
    let events = plan(sent_to(&policy, "own.example", "GET").response(head(response)));
    let (one, two) = VALUE.split_at(3);
    let expected = format!("cat: 1\ndata: dog {PLACEHOLDER}\n\n");
    assert_eq!(streamed(events.body, &["cat: 1\nda", "ta: cat ", one, two, "\n\n"]), expected);

    let response = Response::builder().header("content-type", "text/plain");
    let text = plan(sent_to(&policy, "own.example", "GET").response(head(response)));
    let BodyPlan::Whole(codings, whole) = text.body else { panic!() };
    assert!(codings.is_empty());
    assert_eq!(
        whole.change(format!("cat {VALUE}").into_bytes()).unwrap(),
        format!("dog {PLACEHOLDER}").as_bytes()
    );
}

#[test]
fn a_replacement_cannot_put_a_value_together() {
    let remove = vec![Replacement { find: "--".to_owned(), replace: String::new() }];
    let rule = RuleSpec { phase: Phase::After, body_replacements: remove, ..RuleSpec::default() };
    let policy = policy(vec![rule]);
    let (one, two) = VALUE.split_at(5);
    let text = plan(sent_to(&policy, "own.example", "GET").response(head(Response::builder())));
    let BodyPlan::Whole(_, whole) = text.body else { panic!() };
    assert_eq!(whole.change(format!("{one}--{two}").into_bytes()).unwrap(), PLACEHOLDER.as_bytes());
}

#[test]
fn rules_change_and_block_responses() {
    let change = RuleSpec {
        phase: Phase::After,
        set_response_headers: [("X-Set".to_owned(), "1".to_owned())].into(),
        delete_response_headers: vec!["x-drop".to_owned()],
        ..RuleSpec::default()
    };
    let policy = policy(vec![change]);
    let response = Response::builder().header("x-drop", "1");
    let plan = plan(sent_to(&policy, "other.example", "GET").response(head(response)));
    assert_eq!(plan.parts.headers["x-set"], "1");
    assert_eq!(plan.parts.headers.len(), 1);
    assert!(matches!(plan.body, BodyPlan::AsIs));

    let block = RuleSpec { phase: Phase::After, action: Action::Block, ..RuleSpec::default() };
    let policy = crate::request::tests::policy(vec![block]);
    let denial = denied(sent_to(&policy, "other.example", "GET").response(head(Response::builder())));
    assert_eq!(denial.reason.code(), "rule_block");
}

fn question(policy: &Policy) -> ResponseQuestion {
    let response = Response::builder()
        .status(201)
        .header("x-echo", VALUE)
        .header("content-type", "text/event-stream")
        .header("content-encoding", "gzip");
    asked(sent_to(policy, "own.example", "GET").response(head(response)))
}

fn with_callback() -> Policy {
    policy(vec![RuleSpec {
        phase: Phase::After,
        callback_id: Some("hook".to_owned()),
        ..RuleSpec::default()
    }])
}

#[test]
fn callbacks_see_no_value_that_came_back() {
    let policy = with_callback();
    let question = question(&policy);
    let asked = question.request();
    assert_eq!(asked.status_code, 201);
    assert!(asked.is_sse);
    assert_eq!(asked.response_headers["X-Echo"], [PLACEHOLDER]);
    assert!(!asked.response_headers.contains_key("Content-Encoding"));
}

#[test]
fn a_callback_can_replace_all_of_a_response() {
    let change = ResponseChange {
        headers: Some([("X-New".to_owned(), Values::One("1".to_owned()))].into()),
        body_replacements: Some(vec![Replacement { find: "a".to_owned(), replace: "b".to_owned() }]),
        set_body_base64: Some("Y2F0".to_owned()),
    };
    let policy = with_callback();
    let reply = HookReply { response: Some(change), ..HookReply::default() };
    let plan = plan(question(&policy).answer(Ok(reply)));
    assert_eq!(plan.parts.headers.len(), 1);
    let BodyPlan::Set(body) = plan.body else { panic!() };
    assert_eq!(body, b"cbt");
}

#[test]
fn a_callback_that_fails_denies_the_response() {
    let policy = with_callback();
    let with = |change: ResponseChange| HookReply { response: Some(change), ..HookReply::default() };
    let framing = [("Content-Encoding".to_owned(), Values::One("gzip".to_owned()))].into();
    for reply in [
        Err(HookFailure::TimedOut),
        Ok(HookReply { error: Some("no".to_owned()), ..HookReply::default() }),
        Ok(HookReply { request: Some(Default::default()), ..HookReply::default() }),
        Ok(with(ResponseChange { set_body_base64: Some("?".to_owned()), ..ResponseChange::default() })),
        Ok(with(ResponseChange { headers: Some(framing), ..ResponseChange::default() })),
    ] {
        assert_eq!(denied(question(&policy).answer(reply)).reason.code(), "hook_failed");
    }
}

#[test]
fn an_upgrade_to_what_cannot_be_looked_into_is_refused() {
    let policy = policy(vec![]);
    let response = Response::builder().status(101).header("sec-websocket-extensions", "permessage-deflate");
    let denial = denied(sent_to(&policy, "own.example", "GET").response(head(response)));
    assert_eq!(denial.reason.code(), "upgrade_not_allowed");
}
