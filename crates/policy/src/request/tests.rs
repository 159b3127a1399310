use std::collections::BTreeMap;

use api::hook::{HookReply, RequestChange, Values};
use api::network::{Action, NetworkSpec, RuleSpec, SecretSpec};
use http::header::{AUTHORIZATION, HeaderName};
use http::request::{Builder, Parts};
use http::{HeaderMap, Request, Version};
use proptest::prelude::*;

use super::{Cleared, Context, Exchange, HookFailure, Question, Verdict};
use crate::denial::Denial;
use crate::host::Host;
use crate::policy::Policy;
use crate::secret::SecretValue;

pub(crate) const PLACEHOLDER: &str = "SANDBOX_SECRET_00000000000000000000000000000001";
pub(crate) const VALUE: &str = "sk-live/Value+1&2=3";

/// `own.example` has a secret; `other.example` and `plain.example` have none.
pub(crate) fn policy(rules: Vec<RuleSpec>) -> Policy {
    let secret =
        SecretSpec { placeholder: PLACEHOLDER.to_owned(), hosts: vec!["own.example".to_owned()], mask: true };
    let spec = NetworkSpec {
        allowed_hosts: vec!["other.example".to_owned(), "plain.example:8080".to_owned()],
        secrets: [("KEY".to_owned(), secret)].into(),
        rules,
        callback_socket: Some("/hook".into()),
        ..NetworkSpec::default()
    };
    let values = [("KEY".to_owned(), SecretValue::new(VALUE.to_owned()).unwrap())];
    Policy::compile(&spec, &[], BTreeMap::from(values)).unwrap()
}

pub(crate) fn tls(host: &str) -> Context {
    Context { https: Some(Host::parse(host).unwrap()), port: 443 }
}

fn plain(port: u16) -> Context {
    Context { https: None, port }
}

pub(crate) fn parts(request: Builder) -> Parts {
    request.body(()).unwrap().into_parts().0
}

pub(crate) fn cleared(verdict: Verdict) -> Cleared {
    match verdict {
        Verdict::Forward(cleared) => *cleared,
        Verdict::Deny(denial) => panic!("denied: {denial:?}"),
        Verdict::Ask(question) => panic!("asked: {:?}", question.request()),
    }
}

fn denied(verdict: Verdict) -> Denial {
    match verdict {
        Verdict::Deny(denial) => denial,
        Verdict::Forward(_) => panic!("forwarded"),
        Verdict::Ask(_) => panic!("asked"),
    }
}

fn asked(verdict: Verdict) -> Question {
    match verdict {
        Verdict::Ask(question) => *question,
        Verdict::Forward(_) => panic!("forwarded"),
        Verdict::Deny(denial) => panic!("denied: {denial:?}"),
    }
}

fn get(uri: &str) -> Builder {
    Request::get(uri)
}

#[test]
fn a_request_goes_to_the_one_host_that_it_names() {
    let request = get("/a?b=c").header("host", "OTHER.example");
    let (sent, _) =
        cleared(Exchange::begin(&policy(vec![]), parts(request), &tls("other.example"))).into_parts();
    assert_eq!(sent.uri, "https://other.example/a?b=c");
    assert!(!sent.headers.contains_key("host"));

    let request = get("http://plain.example:8080/").header("host", "plain.example:8080");
    let (sent, _) = cleared(Exchange::begin(&policy(vec![]), parts(request), &plain(8080))).into_parts();
    assert_eq!(sent.uri, "http://plain.example:8080/");
}

#[test]
fn domain_fronting_is_refused() {
    let policy = policy(vec![]);
    for request in [
        get("/").header("host", "own.example"),
        get("/").header("host", "evil.example"),
        get("https://own.example/"),
        get("https://own.example/").version(Version::HTTP_2),
    ] {
        let denial = denied(Exchange::begin(&policy, parts(request), &tls("other.example")));
        assert_eq!(denial.reason.code(), "sni_host_mismatch");
    }
    let request = get("/").header("host", "other.example:8443");
    let denial = denied(Exchange::begin(&policy, parts(request), &tls("other.example")));
    assert_eq!(denial.reason.code(), "sni_host_mismatch");
}

#[test]
fn a_host_that_two_readers_could_read_differently_is_refused() {
    let policy = policy(vec![]);
    for (request, code) in [
        (get("/"), "malformed_request"),
        (get("/").header("host", "other.example").header("host", "other.example"), "malformed_request"),
        (get("https://other.example/").header("host", "own.example"), "malformed_request"),
        (get("https://own.example/").header("host", "other.example"), "malformed_request"),
        (get("https://other.example:8443/").header("host", "other.example"), "malformed_request"),
        (get("http://other.example/").header("host", "other.example"), "malformed_request"),
        (get("ftp://other.example/").header("host", "other.example"), "malformed_request"),
        (get("/").header("host", &b"other.ex\xe4mple"[..]), "malformed_request"),
        (get("/").header("host", ""), "malformed_host"),
        (get("/").header("host", "other.example."), "malformed_host"),
        (get("/").header("host", "user@other.example"), "malformed_host"),
        (get("https://user@other.example/"), "malformed_host"),
        (get("/").header("host", "other.example:0"), "malformed_host"),
        (get("/").header("host", "other.example:+443"), "malformed_host"),
        (get("/").header("host", "other.example,own.example"), "malformed_host"),
        (get("/").header("host", "other.example/"), "malformed_host"),
        (get("/").header("host", "other%2eexample"), "malformed_host"),
    ] {
        let request = parts(request);
        let text = format!("{request:?}");
        let denial = denied(Exchange::begin(&policy, request, &tls("other.example")));
        assert_eq!(denial.reason.code(), code, "{text}");
    }
}

#[test]
fn what_is_not_allowed_is_refused() {
    let policy = policy(vec![]);
    let code = |request: Builder, context: &Context| {
        denied(Exchange::begin(&policy, parts(request), context)).reason.code()
    };
    let request = get("/").header("host", "evil.example");
    assert_eq!(code(request, &tls("evil.example")), "host_not_allowed");
    assert_eq!(code(get("/").header("host", "plain.example"), &plain(80)), "host_not_allowed");
    let connect = Request::connect("other.example:443").header("host", "other.example:443");
    assert_eq!(code(connect, &tls("other.example")), "connect_method");
    for protocol in ["tcp", "TLS/1.0", "websocket", "websocket, tcp", "h2c, tcp"] {
        let upgrade = get("/").header("host", "other.example").header("connection", "upgrade");
        let upgrade = upgrade.header("upgrade", protocol);
        assert_eq!(code(upgrade, &tls("other.example")), "upgrade_not_allowed", "{protocol}");
    }
}

#[test]
fn a_target_is_a_path() {
    let policy = policy(vec![]);
    let star = |method| Request::builder().method(method).uri("*").header("host", "other.example");
    let (sent, _) =
        cleared(Exchange::begin(&policy, parts(star("OPTIONS")), &tls("other.example"))).into_parts();
    assert_eq!(sent.uri.path(), "*");
    let denial = denied(Exchange::begin(&policy, parts(star("GET")), &tls("other.example")));
    assert_eq!(denial.reason.code(), "malformed_request");
}

#[test]
fn what_belongs_to_one_connection_goes_no_further() {
    let request = get("/")
        .header("host", "other.example")
        .header("connection", "keep-alive, X-Hop, upgrade, http2-settings")
        .header("keep-alive", "timeout=5")
        .header("x-hop", "1")
        .header("upgrade", "h2c")
        .header("http2-settings", "AAMAAABk")
        .header("te", "gzip, trailers")
        .header("trailer", "X-Sum")
        .header("transfer-encoding", "chunked")
        .header("expect", "100-continue")
        .header("range", "bytes=1-")
        .header("accept-encoding", "gzip")
        .header("x-kept", "2");
    let cleared = cleared(Exchange::begin(&policy(vec![]), parts(request), &tls("other.example")));
    assert!(!cleared.is_upgrade());
    let (sent, _) = cleared.into_parts();
    let expected: HeaderMap = [
        ("trailer", "X-Sum"),
        ("te", "trailers"),
        ("range", "bytes=1-"),
        ("accept-encoding", "gzip"),
        ("x-kept", "2"),
    ]
    .into_iter()
    .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
    .collect();
    assert_eq!(sent.headers, expected);
}

#[test]
fn values_are_put_in_for_their_own_host_only() {
    let policy = policy(vec![]);
    let request = |host: &str| {
        get(&format!("/x?key={PLACEHOLDER}"))
            .header("host", host)
            .header("authorization", format!("Bearer {PLACEHOLDER}"))
            .header("range", "bytes=0-3")
    };
    let (sent, _) =
        cleared(Exchange::begin(&policy, parts(request("own.example")), &tls("own.example"))).into_parts();
    assert_eq!(sent.headers[AUTHORIZATION], format!("Bearer {VALUE}"));
    assert!(sent.headers[AUTHORIZATION].is_sensitive());
    assert_eq!(sent.uri.query(), Some("key=sk-live%2FValue%2B1%262%3D3"));
    // The answer must be readable, and whole.
    assert_eq!(sent.headers["accept-encoding"], "identity");
    assert!(!sent.headers.contains_key("range"));

    let denial = denied(Exchange::begin(&policy, parts(request("other.example")), &tls("other.example")));
    assert_eq!(denial.reason.code(), "secret_wrong_host");
    let denial = denied(Exchange::begin(&policy, parts(request("own.example")), &plain(80)));
    assert_eq!(denial.reason.code(), "plain_http_secret");
}

#[test]
fn a_placeholder_in_a_header_of_the_connection_is_seen_too() {
    let request = get("/").header("host", "other.example").header("trailer", PLACEHOLDER);
    let denial = denied(Exchange::begin(&policy(vec![]), parts(request), &tls("other.example")));
    assert_eq!(denial.reason.code(), "secret_wrong_host");
}

fn web_socket() -> Builder {
    get("/chat")
        .header("host", "own.example")
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "WebSocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-extensions", "permessage-deflate")
}

#[test]
fn a_web_socket_of_a_host_with_secrets_is_not_compressed() {
    let cleared = cleared(Exchange::begin(&policy(vec![]), parts(web_socket()), &tls("own.example")));
    assert!(cleared.is_upgrade());
    let (sent, _) = cleared.into_parts();
    assert!(!sent.headers.contains_key("sec-websocket-extensions"));
    assert!(sent.headers.contains_key("sec-websocket-key"));
}

#[test]
fn an_upgrade_with_a_body_is_refused() {
    for (name, value) in [("content-length", "5"), ("transfer-encoding", "chunked")] {
        let request = web_socket().header(name, value);
        let denial = denied(Exchange::begin(&policy(vec![]), parts(request), &tls("own.example")));
        assert_eq!(denial.reason.code(), "upgrade_not_allowed");
    }
}

fn to(host: &str) -> Parts {
    parts(get("/v1/a?x=1").header("host", host).header("x-drop", "1"))
}

#[test]
fn rules_change_requests_one_after_the_other() {
    let first = RuleSpec {
        hosts: vec!["other.example".to_owned()],
        set_headers: [("X-Set".to_owned(), "1".to_owned())].into(),
        delete_headers: vec!["X-Drop".to_owned()],
        set_query: [("y".to_owned(), "2 3".to_owned())].into(),
        delete_query: vec!["x".to_owned()],
        rewrite_path: Some("/v2".to_owned()),
        ..RuleSpec::default()
    };
    let second = RuleSpec {
        path: Some("/v2".to_owned()),
        set_headers: [("X-Second".to_owned(), "1".to_owned())].into(),
        ..RuleSpec::default()
    };
    let not_for_it =
        RuleSpec { methods: vec!["POST".to_owned()], action: Action::Block, ..RuleSpec::default() };
    let policy = policy(vec![first, not_for_it, second]);
    let (sent, _) =
        cleared(Exchange::begin(&policy, to("other.example"), &tls("other.example"))).into_parts();
    assert_eq!(sent.uri, "https://other.example/v2?y=2%203");
    assert_eq!(sent.headers.len(), 2);
    assert!(sent.headers.contains_key("x-set") && sent.headers.contains_key("x-second"));
}

#[test]
fn the_first_blocking_rule_wins_and_is_named() {
    let rule = RuleSpec {
        name: Some("no v1".to_owned()),
        path: Some("/v1/*".to_owned()),
        action: Action::Block,
        ..RuleSpec::default()
    };
    let denial = denied(Exchange::begin(&policy(vec![rule]), to("other.example"), &tls("other.example")));
    assert_eq!(denial.reason.code(), "rule_block");
    assert_eq!(denial.rule.as_deref(), Some("rule no v1"));
}

fn with_callback() -> Policy {
    policy(vec![RuleSpec { callback_id: Some("hook".to_owned()), ..RuleSpec::default() }])
}

fn question(policy: &Policy) -> Question {
    let request = get(&format!("/v1?a=1&a=2&key={PLACEHOLDER}"))
        .header("host", "own.example")
        .header("authorization", format!("Bearer {PLACEHOLDER}"))
        .header("content-length", "7");
    asked(Exchange::begin(policy, parts(request), &tls("own.example")))
}

#[test]
fn callbacks_see_placeholders_and_never_values() {
    let question = question(&with_callback());
    let asked = question.request();
    assert_eq!(asked.request_headers["Authorization"], [format!("Bearer {PLACEHOLDER}")]);
    assert_eq!(asked.query["key"], Values::One(PLACEHOLDER.to_owned()));
    assert!(!format!("{asked:?}").contains("sk-live"));
    assert!(!asked.request_headers.contains_key("Content-Length"));
    let (sent, _) = cleared(question.answer(Ok(HookReply::default()))).into_parts();
    assert_eq!(sent.headers[AUTHORIZATION], format!("Bearer {VALUE}"));
}

#[test]
fn an_answer_replaces_whole_maps_and_values_come_after_it() {
    let change = RequestChange {
        headers: Some([("X-Key".to_owned(), Values::One(PLACEHOLDER.to_owned()))].into()),
        query: Some([("q".to_owned(), Values::Many(vec!["1".to_owned(), "2".to_owned()]))].into()),
        path: Some("/v2".to_owned()),
    };
    let reply = HookReply { request: Some(change), ..HookReply::default() };
    let (sent, _) = cleared(question(&with_callback()).answer(Ok(reply))).into_parts();
    assert_eq!(sent.uri, "https://own.example/v2?q=1&q=2");
    assert_eq!(sent.headers["x-key"], VALUE);
    assert!(!sent.headers.contains_key("authorization"));

    let empty = RequestChange { query: Some(BTreeMap::new()), ..RequestChange::default() };
    let reply = HookReply { request: Some(empty), ..HookReply::default() };
    let (sent, _) = cleared(question(&with_callback()).answer(Ok(reply))).into_parts();
    assert_eq!(sent.uri, "https://own.example/v1");
}

#[test]
fn an_answer_that_cannot_be_followed_denies() {
    let with = |change: RequestChange| HookReply { request: Some(change), ..HookReply::default() };
    let headers = |name: &str, value: &str| RequestChange {
        headers: Some([(name.to_owned(), Values::One(value.to_owned()))].into()),
        ..RequestChange::default()
    };
    let path = |path: &str| RequestChange { path: Some(path.to_owned()), ..RequestChange::default() };
    let replies = [
        Err(HookFailure::TimedOut),
        Err(HookFailure::TooLong),
        Err(HookFailure::Unreachable("refused".to_owned())),
        Ok(HookReply { error: Some("no".to_owned()), ..HookReply::default() }),
        Ok(HookReply { response: Some(Default::default()), ..HookReply::default() }),
        Ok(with(headers("Host", "evil.example"))),
        Ok(with(headers("Transfer-Encoding", "chunked"))),
        Ok(with(headers(":path", "/"))),
        Ok(with(headers("x", "a\r\nb: c"))),
        Ok(with(path("v2"))),
        Ok(with(path("/a b"))),
        Ok(with(path("/a?b"))),
        Ok(with(path("//a\r\nHost: evil"))),
    ];
    for reply in replies {
        let text = format!("{reply:?}");
        let denial = denied(question(&with_callback()).answer(reply));
        assert_eq!(denial.reason.code(), "hook_failed", "{text}");
    }
    let block = HookReply { action: Some(Action::Block), ..HookReply::default() };
    assert_eq!(denied(question(&with_callback()).answer(Ok(block))).reason.code(), "rule_block");
}

/// Any head, with the placeholder somewhere in it.
fn heads() -> impl Strategy<Value = (String, Option<String>, Vec<(String, String)>)> {
    let text = || {
        let plain = "[a-zA-Z0-9 .:%=&+/-]{0,12}";
        let encoded =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("user:{PLACEHOLDER}"));
        prop_oneof![
            3 => plain.prop_map(|text| text),
            1 => (plain, plain).prop_map(|(a, b)| format!("{a}{PLACEHOLDER}{b}")),
            1 => Just(format!("Basic {encoded}")),
        ]
    };
    let in_target = |text: String| text.replace(' ', "+");
    let headers = proptest::collection::vec(("x-[a-z]{1,3}", text()), 0..4);
    (text().prop_map(in_target), proptest::option::of(text().prop_map(in_target)), headers)
        .prop_map(|(path, query, headers)| (format!("/{path}"), query, headers))
}

proptest! {
    #[test]
    fn the_value_is_never_in_a_request_to_a_host_that_it_is_not_for(
        (path, query, headers) in heads(),
        host in prop_oneof![Just("own.example"), Just("other.example")],
        https in any::<bool>(),
        version in prop_oneof![Just(Version::HTTP_11), Just(Version::HTTP_2)],
    ) {
        let uri = query.map_or(path.clone(), |query| format!("{path}?{query}"));
        let mut request = get(&uri).version(version).header("host", host);
        for (name, value) in &headers {
            request = request.header(name, value.trim());
        }
        let Ok(request) = request.body(()) else { return Ok(()) };
        let context = if https { tls(host) } else { plain(80) };
        let verdict = Exchange::begin(&policy(vec![]), request.into_parts().0, &context);
        let may_have_it = host == "own.example" && https;
        if let Verdict::Forward(cleared) = verdict {
            let (sent, _) = cleared.into_parts();
            let mut bytes = format!("{} ", sent.uri);
            for (name, value) in &sent.headers {
                bytes.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
            }
            let encoded = percent_encoding::utf8_percent_encode(VALUE, percent_encoding::NON_ALPHANUMERIC).to_string();
            let core = "c2stbGl2ZS9WYWx1ZSsxJjI9M";
            if !may_have_it {
                prop_assert!(!bytes.contains(VALUE) && !bytes.contains(&encoded) && !bytes.contains(core));
                prop_assert!(!bytes.contains(PLACEHOLDER), "a placeholder goes nowhere else either");
            }
        }
    }
}
