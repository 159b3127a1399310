//! What a refusal says, and to whom.

use super::*;

fn body(denial: &Denial) -> serde_json::Value {
    serde_json::from_slice(&denial.body()).unwrap()
}

#[test]
fn a_refusal_says_how_to_allow_it() {
    let denial = Denial::new(Reason::HostNotAllowed, "example.com", 443).by("the network is sealed");
    assert_eq!(denial.to_string(), "example.com is not allowed; allow it with --allow-host example.com");
    assert_eq!(
        body(&denial),
        json!({
            "blocked_by": "matchlock", "reason": "host_not_allowed", "host": "example.com",
            "hint": "allow it with --allow-host example.com",
        })
    );
    let port = |host: &str, port| Denial::new(Reason::HostNotAllowed, host, port).entry().unwrap();
    assert_eq!(port("db.example", 5432), "db.example:5432");
    assert_eq!(port("2606::1", 5432), "[2606::1]:5432");
    assert_eq!(port("2606::1", 443), "2606::1");
    assert_eq!(port("a.example", 0), "a.example");
    assert_eq!(Denial::new(Reason::UnknownProtocol, "a.example", 443).entry().unwrap(), "a.example:443");
}

#[test]
fn what_would_be_allowed_is_an_entry() {
    for reason in [Reason::HostNotAllowed, Reason::AddressNotResolved, Reason::UnknownProtocol] {
        for host in ["a.example", "10.0.0.1", "fd00::1"] {
            for port in [80, 443, 5432] {
                let entry = Denial::new(reason.clone(), host, port).entry().unwrap();
                assert!(entry.parse::<crate::Entry>().is_ok(), "{entry}");
            }
        }
    }
}

#[test]
fn the_guest_does_not_hear_which_address_a_name_has_nor_which_rule_decided() {
    let reason = Reason::PrivateAddress { address: "10.1.2.3".parse().unwrap(), why: "RFC 1918" };
    let denial = Denial::new(reason, "intranet.example", 443).by("--allow-host *.intranet.example");
    assert!(denial.message().contains("10.1.2.3"));
    assert_eq!(denial.hint().as_deref(), Some("allow it with --allow-host 10.1.2.3"));
    let body = body(&denial).to_string();
    assert!(!body.contains("10.1.2.3") && !body.contains("1918") && !body.contains('*'), "{body}");
}

#[test]
fn a_host_with_control_characters_or_without_end_does_not_come_into_the_log() {
    let denial = Denial::new(Reason::MalformedHost, format!("a\r\nb\u{1b}[31m{}", "x".repeat(10_000)), 80);
    assert!(denial.host.chars().count() <= MAX_SHOWN);
    assert!(!denial.host.contains(char::is_control));
    assert!(serde_json::from_slice::<serde_json::Value>(&denial.body()).is_ok());
}

#[test]
fn codes_are_names_for_programs_and_differ() {
    let secret = || "S".to_owned();
    let reasons = [
        Reason::HostNotAllowed,
        Reason::AddressNotResolved,
        Reason::PrivateAddress { address: "10.0.0.1".parse().unwrap(), why: "" },
        Reason::DnsName,
        Reason::SniMissing,
        Reason::SniInvalid,
        Reason::SniHostMismatch,
        Reason::EncryptedHello,
        Reason::MalformedHello,
        Reason::PlainHttpSecret { secret: secret() },
        Reason::SecretWrongHost { secret: secret() },
        Reason::SecretTooLarge,
        Reason::SecretReflected,
        Reason::RuleBlock,
        Reason::HookFailed,
        Reason::MalformedRequest,
        Reason::MalformedHost,
        Reason::ConnectMethod,
        Reason::UpgradeNotAllowed,
        Reason::UnknownProtocol,
        Reason::Udp,
        Reason::EncodingUnknown,
        Reason::BodyTooLarge,
    ];
    let codes: std::collections::BTreeSet<_> = reasons.iter().map(Reason::code).collect();
    assert_eq!(codes.len(), reasons.len());
    for reason in &reasons {
        assert!(reason.code().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        let denial = Denial::new(reason.clone(), "a.example", 443);
        assert!(denial.message().contains("a.example"), "{}", denial.message());
    }
}
