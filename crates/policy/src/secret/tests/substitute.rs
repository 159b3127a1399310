//! Placeholders on their way to hosts.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use proptest::prelude::*;

use super::*;

/// A request's head.
#[derive(Debug, Clone, Default, PartialEq)]
struct Head {
    headers: HeaderMap,
    path: String,
    query: Option<String>,
}

impl Head {
    fn header(name: &'static str, value: &str) -> Self {
        let mut head = Self { path: "/".to_owned(), ..Self::default() };
        head.headers.append(name, HeaderValue::from_str(value).unwrap());
        head
    }

    fn path(path: &str) -> Self {
        Self { path: path.to_owned(), ..Self::default() }
    }

    fn query(query: &str) -> Self {
        Self { path: "/".to_owned(), query: Some(query.to_owned()), ..Self::default() }
    }

    fn value(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn send(&mut self, policy: &Policy, host: &str, https: bool) -> Result<bool, &'static str> {
        let permit = permit(policy, host, if https { 443 } else { 80 });
        let sent =
            policy.secrets().substitute(&permit, https, &mut self.headers, &self.path, &mut self.query);
        sent.map_err(|denial| denial.reason.code())
    }

    /// All that would be sent.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.path.clone().into_bytes();
        for (name, value) in &self.headers {
            bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
        bytes.extend(self.query.clone().unwrap_or_default().into_bytes());
        bytes
    }
}

fn basic(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

fn percent_all(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn a_header_to_its_own_host_gets_the_value() {
    let policy = two();
    let mut head = Head::header("authorization", &format!("Bearer {P1}"));
    head.headers.append("x-key", HeaderValue::from_str(&format!("{P1},{P1}")).unwrap());
    head.headers.append("accept", HeaderValue::from_static("*/*"));
    assert_eq!(head.send(&policy, "own.example", true), Ok(true));
    assert_eq!(head.value("authorization"), format!("Bearer {V1}"));
    assert_eq!(head.value("x-key"), format!("{V1},{V1}"));
    assert!(head.headers["authorization"].is_sensitive() && head.headers["x-key"].is_sensitive());
    assert!(!head.headers["accept"].is_sensitive());
}

#[test]
fn every_value_of_a_header_that_comes_several_times_is_looked_at() {
    let policy = two();
    let mut head = Head::header("x-key", "none");
    head.headers.append("x-key", HeaderValue::from_str(P1).unwrap());
    let mut wrong = head.clone();
    assert_eq!(head.send(&policy, "own.example", true), Ok(true));
    let values: Vec<_> = head.headers.get_all("x-key").iter().collect();
    assert_eq!(values, ["none", V1]);
    assert_eq!(wrong.send(&policy, "other.example", true), Err("secret_wrong_host"));
}

#[test]
fn basic_is_decoded_and_rebuilt_for_its_own_host() {
    let policy = two();
    for text in [format!("user:{P1}"), format!("{P1}:"), format!(":{P1}"), format!("ü:{P1}x")] {
        for encoded in [STANDARD.encode(&text), STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)]
        {
            for scheme in ["Basic ", "basic ", "BASIC   "] {
                let mut head = Head::header("authorization", &format!("{scheme}{encoded}"));
                assert_eq!(head.clone().send(&policy, "other.example", true), Err("secret_wrong_host"));
                assert_eq!(head.send(&policy, "own.example", true), Ok(true));
                let (kept, rebuilt) = head.value("authorization").split_at(scheme.len());
                assert_eq!(kept, scheme);
                let decoded = STANDARD.decode(rebuilt).unwrap();
                assert_eq!(String::from_utf8(decoded).unwrap(), text.replace(P1, V1));
                assert!(head.headers["authorization"].is_sensitive());
            }
        }
    }
    let mut plain = Head::header("authorization", &basic("user:password"));
    let before = plain.clone();
    assert_eq!(plain.send(&policy, "own.example", true), Ok(false));
    assert_eq!(plain, before);
}

#[test]
fn a_query_to_its_own_host_gets_the_value_encoded_and_keeps_the_rest() {
    let policy = two();
    let encoded = "correct%20horse%2Fbattery%2Bstaple%3D";
    for (query, expected) in [
        (format!("a=%7e+1&key={P1}&b=%zz%"), format!("a=%7e+1&key={encoded}&b=%zz%")),
        (P1.to_owned(), encoded.to_owned()),
        (percent_all(P1), encoded.to_owned()),
        (format!("%C3%A4ö{P1}%e2"), format!("%C3%A4ö{encoded}%e2")),
        (format!("{P1}{P1}"), format!("{encoded}{encoded}")),
    ] {
        let mut head = Head::query(&query);
        assert_eq!(head.send(&policy, "own.example", true), Ok(true));
        assert_eq!(head.query.unwrap(), expected);
    }
    // Not written as it is by any URL parser.
    for query in ["t=%7B%7Bsecond%2Btoken%7D%7D", "t={{second%2Btoken}}", "t={{second+token}}"] {
        let mut head = Head::query(query);
        assert_eq!(head.send(&policy, "second.example", true), Ok(true), "{query}");
        assert_eq!(head.query.unwrap(), format!("t={V2}"));
    }
}

#[test]
fn a_placeholder_to_another_host_is_denied_wherever_it_is_and_however_it_is_written() {
    let policy = two();
    let base64 = |text: &str| STANDARD.encode(text);
    for head in [
        Head::header("x-key", P1),
        Head::header("x-key", &format!("prefix{P1}suffix")),
        Head::header("cookie", &percent_all(P1)),
        Head::header("cookie", &percent_all(&percent_all(P1))),
        Head::header("authorization", &basic(&format!("user:{P1}"))),
        Head::header("authorization", &format!("Bearer {}", base64(P1))),
        Head::header("authorization", &format!("Bearer {}", base64(&format!("x{P1}")))),
        Head::header("authorization", &format!("Bearer {}", base64(&format!("xy{P1}z")))),
        Head::header("authorization", &format!("Bearer {}", URL_SAFE_NO_PAD.encode(format!("???{P2}")))),
        Head::header("host", P1),
        Head::path(&format!("/{P1}/x")),
        Head::path(&format!("/{}", percent_all(P1))),
        Head::path(&format!("/{}", base64(&format!("q{P1}")))),
        Head::path(&format!("/{}", percent_all(&base64(P1)))),
        Head::query(P1),
        Head::query(&format!("a={}", percent_all(P1))),
        Head::query(&format!("a={}", base64(P1).replace('=', "%3D"))),
        Head::query(&format!("{P1}=a")),
        Head::header("x-key", P2),
    ] {
        for https in [true, false] {
            let mut sent = head.clone();
            assert_eq!(sent.send(&policy, "other.example", https), Err("secret_wrong_host"), "{head:?}");
            assert_eq!(sent, head);
        }
    }
}

#[test]
fn a_placeholder_in_the_name_of_a_header_is_denied_for_another_host() {
    let policy = two();
    let mut head = Head::path("/");
    let name = http::HeaderName::try_from(format!("x-{}", P1.to_ascii_lowercase())).unwrap();
    head.headers.insert(name, HeaderValue::from_static("1"));
    assert_eq!(head.clone().send(&policy, "other.example", true), Err("secret_wrong_host"));
    assert_eq!(head.send(&policy, "own.example", true), Ok(false));
}

#[test]
fn a_secret_goes_over_plain_http_only_where_the_user_said_so() {
    let policy = two();
    let head = Head::header("x-key", P1);
    assert_eq!(head.clone().send(&policy, "own.example", false), Err("plain_http_secret"));
    assert_eq!(Head::query(P1).send(&policy, "own.example", false), Err("plain_http_secret"));
    assert_eq!(
        Head::header("authorization", &basic(P1)).send(&policy, "own.example", false),
        Err("plain_http_secret")
    );
    for https in [true, false] {
        let mut sent = head.clone();
        assert_eq!(sent.send(&policy, "plain.example", https), Ok(true));
        assert_eq!(sent.value("x-key"), V1);
    }
}

#[test]
fn a_secret_goes_to_its_own_port_only() {
    let policy =
        compile(&[("A", P1, V1, &["own.example:8443"], true), ("B", P2, V2, &["own.example"], true)])
            .unwrap();
    let substitute = |port| {
        let mut head = Head::header("x-key", P1);
        let permit = permit(&policy, "own.example", port);
        policy
            .secrets()
            .substitute(&permit, true, &mut head.headers, "/", &mut None)
            .map_err(|denial| denial.reason)
    };
    assert_eq!(substitute(8443), Ok(true));
    assert_eq!(substitute(443), Err(Reason::SecretWrongHost { secret: "A".to_owned() }));
}

#[test]
fn the_path_stays_as_it_is_for_its_own_host() {
    let mut head = Head::path(&format!("/{P1}"));
    assert_eq!(head.send(&two(), "own.example", true), Ok(false));
    assert_eq!(head, Head::path(&format!("/{P1}")));
}

#[test]
fn headers_that_frame_the_message_stay_as_they_are() {
    let policy = compile(&[("A", "own-token", "evil", &["*.own.example"], true)]).unwrap();
    for name in ["host", "content-length", "transfer-encoding", "connection", "upgrade"] {
        let mut head = Head::header(name, "own-token.own.example");
        assert_eq!(head.send(&policy, "own-token.own.example", true), Ok(false));
        assert_eq!(head.value(name), "own-token.own.example");
    }
}

#[test]
fn a_value_that_has_a_placeholder_is_not_looked_at_again() {
    let inner = format!("v {P2} v");
    let policy =
        compile(&[("A", P1, &inner, &["both.example"], true), ("B", P2, V2, &["both.example"], true)]);
    let policy = policy.unwrap();
    let mut head = Head::header("x-key", &format!("{P1} {P2}"));
    head.query = Some(format!("a={P1}"));
    assert_eq!(head.send(&policy, "both.example", true), Ok(true));
    assert_eq!(head.value("x-key"), format!("{inner} {V2}"));
    let query = head.query.unwrap();
    assert_eq!(percent_decode_str(&query).decode_utf8().unwrap(), format!("a={inner}"));
}

#[test]
fn one_secret_of_two_to_the_wrong_host_sends_neither() {
    let policy = two();
    let mut head = Head::header("x-a", P1);
    head.headers.insert("x-b", HeaderValue::from_static(P2));
    let before = head.clone();
    assert_eq!(head.send(&policy, "own.example", true), Err("secret_wrong_host"));
    assert_eq!(head, before);
    assert_eq!(head.send(&policy, "both.example", true), Ok(true));
}

#[test]
fn many_placeholders_do_not_make_a_head_of_megabytes() {
    let long = "x".repeat(MAX_VALUE);
    let policy = compile(&[("A", "TOKEN-OF-A", &long, &["own.example"], true)]).unwrap();
    let mut head = Head::header("x-key", &"TOKEN-OF-A".repeat(6000));
    assert_eq!(head.send(&policy, "own.example", true), Err("secret_too_large"));
    let mut few = Head::header("x-key", "TOKEN-OF-A");
    assert_eq!(few.send(&policy, "own.example", true), Ok(true));
}

#[test]
fn a_refusal_tells_the_name_and_no_value() {
    let policy = two();
    let mut head = Head::header("x-key", P1);
    let permit = permit(&policy, "other.example", 443);
    let denial = policy.secrets().substitute(&permit, true, &mut head.headers, "/", &mut None).unwrap_err();
    assert_eq!(denial.rule.as_deref(), Some("secret FIRST"));
    assert_eq!(denial.message(), "the secret FIRST is not for other.example");
    assert!(!String::from_utf8(denial.body()).unwrap().contains(V1));
}

/// Texts of a guest with placeholders in many forms among other things.
fn guest_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-zA-Z0-9%+=&{}_:/ -]{0,12}",
        Just(P1.to_owned()),
        Just(P2.to_owned()),
        Just(percent_all(P1)),
        Just(percent_all(P2)),
        Just(STANDARD.encode(P1)),
        Just(P1[..20].to_owned()),
        "[a-z]{0,4}".prop_map(|user| STANDARD.encode(format!("{user}:{P1}"))),
        "[a-z]{0,4}".prop_map(|user| basic(&format!("{user}:{P2}"))),
    ];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

fn any_head() -> impl Strategy<Value = Head> {
    let query = proptest::option::of(guest_text());
    (guest_text(), guest_text(), guest_text(), query).prop_map(|(first, second, path, query)| {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("x-key", first.clone()), ("authorization", second), ("authorization", basic(&first))]
        {
            headers.append(name, HeaderValue::from_str(&value).unwrap());
        }
        Head { headers, path, query }
    })
}

/// Whether a value is in what is sent, in any form that a host could make use of.
fn has(bytes: &[u8], value: &str) -> bool {
    let contains = |text: &[u8], value: &[u8]| text.windows(value.len()).any(|window| window == value);
    let mut text = bytes.to_vec();
    for _ in 0..3 {
        if contains(&text, value.as_bytes())
            || form::base64_cores(value.as_bytes()).iter().any(|core| contains(&text, core.as_bytes()))
        {
            return true;
        }
        text = percent_encoding::percent_decode(&text).collect();
    }
    false
}

proptest! {
    #[test]
    fn the_value_never_appears_in_what_is_sent_to_a_host_it_is_not_for(head in any_head(), https in any::<bool>(), host in 0..5_usize) {
        let policy = two();
        let (host, first, second) = [
            ("other.example", false, false),
            ("own.example", https, false),
            ("second.example", false, https),
            ("both.example", https, https),
            ("plain.example", true, false),
        ][host];
        let mut sent = head.clone();
        // What a refused request has become is not sent, but must not have values either.
        let result = sent.send(&policy, host, https);
        let bytes = sent.bytes();
        prop_assert!(first || !has(&bytes, V1), "{:?}", sent);
        prop_assert!(second || !has(&bytes, V2), "{:?}", sent);
        if let Ok(changed) = result {
            prop_assert_eq!(changed, sent != head);
            prop_assert_eq!(&sent.path, &head.path);
            prop_assert_eq!(sent.headers.len(), head.headers.len());
        }
    }

    #[test]
    fn a_query_means_the_same_with_the_value_in_the_place_of_the_placeholder(before in "[a-z%0-9+=&{}]{0,20}", after in "[a-z%0-9+=&{}]{0,20}") {
        let mut head = Head::query(&format!("{before}{P2}{after}"));
        prop_assert_eq!(head.send(&two(), "second.example", true), Ok(true));
        let decode = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
        let expected = [decode(&before), V2.as_bytes().to_vec(), decode(&after)].concat();
        // A `%` just before the placeholder or a digit just after it may be parts of no escape.
        prop_assert_eq!(decode(&head.query.unwrap()), expected);
    }

    #[test]
    fn any_bytes_in_a_header_are_looked_at_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), query in "\\PC{0,40}") {
        let policy = two();
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            let mut head = Head { query: Some(query.clone()), ..Head::default() };
            head.headers.insert("authorization", value);
            prop_assert_eq!(head.send(&policy, "own.example", true), Ok(false));
            prop_assert_eq!(head.query, Some(query));
        }
    }
}
