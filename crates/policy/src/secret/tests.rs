//! Values that must not get out, and must get to their hosts.

mod mask;
mod substitute;

use std::net::IpAddr;

use api::network::NetworkSpec;

use crate::host::Host;
use crate::policy::{Policy, PolicyError};

use super::*;

/// A secret for tests: name, placeholder, value, hosts, whether it is hidden in answers.
type Row<'a> = (&'a str, &'a str, &'a str, &'a [&'a str], bool);

const P1: &str = "SANDBOX_SECRET_00112233445566778899aabbccddeeff";
const P2: &str = "{{second+token}}";
const V1: &str = "correct horse/battery+staple=";
const V2: &str = "s3cr3t-value-of-the-second";

fn compile(rows: &[Row<'_>]) -> Result<Policy, PolicyError> {
    let spec = |&(name, placeholder, _, hosts, mask): &Row<'_>| {
        let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        (name.to_owned(), SecretSpec { placeholder: placeholder.to_owned(), hosts, mask })
    };
    let value =
        |&(name, _, value, ..): &Row<'_>| (name.to_owned(), SecretValue::new(value.to_owned()).unwrap());
    let spec = NetworkSpec {
        allowed_hosts: vec!["other.example".to_owned()],
        secrets: rows.iter().map(spec).collect(),
        ..NetworkSpec::default()
    };
    Policy::compile(&spec, &[], rows.iter().map(value).collect())
}

/// One secret for `own.example`, over plain HTTP for `plain.example`, and one for `second.example` and both.
fn two() -> Policy {
    compile(&[
        ("FIRST", P1, V1, &["own.example", "both.example:443", "http://plain.example"], true),
        ("SECOND", P2, V2, &["second.example", "both.example"], true),
    ])
    .unwrap()
}

fn permit(policy: &Policy, host: &str, port: u16) -> Permit {
    policy.host(&Host::parse(host).unwrap(), port).unwrap()
}

fn refused(rows: &[Row<'_>]) -> SecretError {
    match compile(rows).unwrap_err() {
        PolicyError::Secret(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_value_that_no_header_can_have_is_refused_without_being_told() {
    let refused = |text: &str| SecretValue::new(text.to_owned()).unwrap_err();
    assert_eq!(refused(""), InvalidSecret::Empty);
    assert_eq!(refused("value\n"), InvalidSecret::LineBreak);
    for text in ["a\r\nx-header: b", "a\0b", "a\tb", "a\u{7f}b", "\u{1b}[0m"] {
        assert_eq!(refused(text), InvalidSecret::Control, "{text:?}");
    }
    for text in [" a", "a ", " "] {
        assert_eq!(refused(text), InvalidSecret::Space, "{text:?}");
    }
    assert_eq!(refused(&"x".repeat(MAX_VALUE + 1)), InvalidSecret::TooLong);
    let value = SecretValue::try_from("pässword with spaces".to_owned()).unwrap();
    assert_eq!(value.expose(), "pässword with spaces");
    assert_eq!(format!("{value:?}"), "…");
}

#[test]
fn a_placeholder_is_random_and_can_be_told_from_others() {
    assert_eq!(placeholder([0; 16]), format!("SANDBOX_SECRET_{}", "0".repeat(32)));
    assert_eq!(placeholder([0xab; 16]), format!("SANDBOX_SECRET_{}", "ab".repeat(16)));
    for text in ["short", "with a space", "with\u{e4}umlaut", "tab\ttab\ttab", "", "1234567"] {
        let error = refused(&[("A", text, V1, &["a.example"], true)]);
        assert_eq!(error, SecretError::Placeholder { name: "A".to_owned() }, "{text:?}");
    }
    assert!(compile(&[("A", &"x".repeat(256), V1, &["a.example"], true)]).is_ok());
    assert!(compile(&[("A", &"x".repeat(257), V1, &["a.example"], true)]).is_err());
    for (a, b) in [(P1, P1), ("token-of-a", "token-of-all"), ("my-token-of-a", "token-of-a")] {
        let error = refused(&[("A", a, V1, &["a.example"], true), ("B", b, V2, &["a.example"], true)]);
        assert!(matches!(error, SecretError::PlaceholderInAnother { .. }), "{a} {b}");
    }
}

#[test]
fn a_value_is_not_in_a_placeholder_that_the_guest_has() {
    for (placeholder, value) in [(P1, "SECRET"), (P1, P1), (P1, "aabb")] {
        let error = refused(&[("A", placeholder, value, &["a.example"], true)]);
        assert!(matches!(error, SecretError::ValueInPlaceholder { .. }), "{value}");
    }
    let other = refused(&[
        ("A", P2, "abc-SECRET-not", &["a.example"], true),
        ("B", P1, "second", &["a.example"], true),
    ]);
    assert!(matches!(other, SecretError::ValueInPlaceholder { .. }));
}

#[test]
fn secrets_that_make_no_sense_are_refused() {
    let name = || "A".to_owned();
    assert_eq!(refused(&[("A", P1, V1, &[], true)]), SecretError::NoHost { name: name() });
    for host in ["*", "http://*", "*:443"] {
        assert_eq!(refused(&[("A", P1, V1, &[host], true)]), SecretError::EveryHost { name: name() });
    }
    for host in ["http://a.example/path", "ftp://a.example", "a b", ""] {
        let error = refused(&[("A", P1, V1, &["good.example", host], true)]);
        assert!(matches!(error, SecretError::Host { .. }), "{host}");
    }
    for odd in ["", "A=B", "A\0"] {
        assert!(matches!(refused(&[(odd, P1, V1, &["a.example"], true)]), SecretError::Name { .. }));
    }
    let spec = SecretSpec { placeholder: P1.to_owned(), hosts: vec!["a.example".to_owned()], mask: true };
    let specs = BTreeMap::from([(name(), spec)]);
    let value = SecretValue::new(V1.to_owned()).unwrap();
    let none = Secrets::compile(&specs, BTreeMap::new()).map(drop);
    assert_eq!(none, Err(SecretError::NoValue { name: name() }));
    let more = BTreeMap::from([(name(), value.clone()), ("B".to_owned(), value)]);
    assert_eq!(Secrets::compile(&specs, more).map(drop), Err(SecretError::Unknown { name: "B".to_owned() }));
}

#[test]
fn long_and_many_secrets_are_bounded() {
    let long = "x".repeat(MAX_VALUE);
    assert!(compile(&[("A", P1, &long, &["a.example"], true)]).is_ok());
    let names: Vec<_> = (0..=MAX_SECRETS).map(|i| (format!("S{i}"), format!("PLACEHOLDER-{i:04}"))).collect();
    let rows: Vec<Row<'_>> = names
        .iter()
        .map(|(name, placeholder)| (&**name, &**placeholder, V1, &["a.example"][..], true))
        .collect();
    assert_eq!(refused(&rows), SecretError::TooLarge);
    assert!(compile(&rows[1..]).is_ok());
    let rows: Vec<Row<'_>> = rows[..9].iter().map(|row| (row.0, row.1, &*long, row.3, true)).collect();
    assert_eq!(refused(&rows), SecretError::TooLarge);
}

#[test]
fn the_environment_has_names_and_placeholders() {
    let policy = two();
    let environment: Vec<_> = policy.secrets().environment().collect();
    assert_eq!(environment, [("FIRST", P1), ("SECOND", P2)]);
    assert!(!policy.secrets().is_empty());
    let none = Policy::compile(&NetworkSpec::default(), &[], BTreeMap::new()).unwrap();
    assert!(none.secrets().is_empty());
    assert_eq!(none.secrets().environment().count(), 0);
}

#[test]
fn a_secret_for_an_address_goes_to_that_address() {
    let policy = compile(&[("A", P1, V1, &["http://10.0.0.7:8080"], true)]).unwrap();
    let permit = policy.host(&Host::from("10.0.0.7".parse::<IpAddr>().unwrap()), 8080).unwrap();
    assert!(policy.secrets().secrets[0].check(&permit, false).is_ok());
}
