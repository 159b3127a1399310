use api::network::{Action, Phase, Replacement, RuleSpec};
use http::Method;

use super::{RuleProblem, Rules, Subject};
use crate::host::Host;

fn problem(spec: RuleSpec) -> RuleProblem {
    Rules::compile(&[spec], true).unwrap_err().problem
}

fn named(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

fn one(name: &str, value: &str) -> std::collections::BTreeMap<String, String> {
    [(name.to_owned(), value.to_owned())].into()
}

#[test]
fn rules_cannot_change_where_a_message_goes_or_ends() {
    for name in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "connection",
        "Upgrade",
        "TE",
        "Trailer",
        "Expect",
        "HTTP2-Settings",
        "Keep-Alive",
        "Proxy-Connection",
    ] {
        let set = RuleSpec { set_headers: one(name, "x"), ..RuleSpec::default() };
        assert!(matches!(problem(set), RuleProblem::Framing(_)), "{name}");
        let delete = RuleSpec { delete_headers: named(name), ..RuleSpec::default() };
        assert!(matches!(problem(delete), RuleProblem::Framing(_)), "{name}");
    }
    for name in ["Content-Length", "content-encoding", "Connection", "alt-svc"] {
        let set =
            RuleSpec { phase: Phase::After, set_response_headers: one(name, "x"), ..RuleSpec::default() };
        assert!(matches!(problem(set), RuleProblem::Framing(_)), "{name}");
    }
}

#[test]
fn what_is_no_header_is_refused() {
    for name in [":authority", "a b", "", "a\r\nb", "ä"] {
        let set = RuleSpec { set_headers: one(name, "x"), ..RuleSpec::default() };
        assert!(matches!(problem(set), RuleProblem::HeaderName(_)), "{name:?}");
    }
    for value in ["a\r\nb: c", "a\0", "a\nb"] {
        let set = RuleSpec { set_headers: one("a", value), ..RuleSpec::default() };
        let problem = problem(set);
        assert_eq!(problem, RuleProblem::HeaderValue("a".to_owned()));
    }
}

#[test]
fn a_callback_without_anybody_to_call_is_refused() {
    let spec = RuleSpec { callback_id: Some("hook".to_owned()), ..RuleSpec::default() };
    assert!(Rules::compile(std::slice::from_ref(&spec), true).is_ok());
    let error = Rules::compile(&[spec], false).unwrap_err();
    assert_eq!(error.problem, RuleProblem::NoCallbackSocket);
    assert_eq!(error.to_string(), "the network rule #1 has a callback, but there is no callback socket");
}

#[test]
fn a_change_of_the_other_phase_is_refused_and_not_forgotten() {
    let spec = RuleSpec { set_response_headers: one("a", "b"), ..RuleSpec::default() };
    assert_eq!(problem(spec), RuleProblem::WrongPhase { field: "set_response_headers" });
    let spec = RuleSpec { phase: Phase::After, rewrite_path: Some("/x".to_owned()), ..RuleSpec::default() };
    assert_eq!(problem(spec), RuleProblem::WrongPhase { field: "rewrite_path" });
}

#[test]
fn odd_paths_and_empty_texts_are_refused() {
    for path in ["x", "/a b", "/a?b", "/a#b", "/ä", "/a\r\n"] {
        let spec = RuleSpec { rewrite_path: Some(path.to_owned()), ..RuleSpec::default() };
        assert_eq!(problem(spec), RuleProblem::Path(path.to_owned()));
    }
    let body_replacements = vec![Replacement { find: String::new(), replace: "x".to_owned() }];
    let spec = RuleSpec { phase: Phase::After, body_replacements, ..RuleSpec::default() };
    assert_eq!(problem(spec), RuleProblem::Empty("text to be replaced"));
    let spec = RuleSpec { hosts: named(" "), ..RuleSpec::default() };
    assert!(matches!(problem(spec), RuleProblem::Host(_)));
}

#[test]
fn a_rule_is_for_its_hosts_methods_and_paths_only() {
    let spec = RuleSpec {
        hosts: vec!["*.Example.com".to_owned(), "10.0.0.1".to_owned()],
        methods: named("post"),
        path: Some("/v1/*".to_owned()),
        action: Action::Block,
        ..RuleSpec::default()
    };
    let rules = Rules::compile(&[spec], false).unwrap();
    let matches = |host, method: &str, path| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let host = &Host::parse(host).unwrap();
        rules.before()[0].filter.matches(&Subject { host, port: 443, method: &method, path })
    };
    assert!(matches("api.example.com", "POST", "/v1/a/b"));
    assert!(matches("10.0.0.1", "pOsT", "/x/../v1/a"));
    assert!(!matches("example.com", "POST", "/v1/a"));
    assert!(!matches("api.example.com", "GET", "/v1/a"));
    assert!(!matches("api.example.com", "POST", "/v2/a"));
}
