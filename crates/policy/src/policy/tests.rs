//! What a sandbox must not reach, and what it must.

use api::network::{RuleSpec, SecretSpec};
use proptest::prelude::*;

use crate::address::{Class, class};
use crate::denial::{Denial, Reason};
use crate::host::Host;

use super::*;

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn allowing(hosts: &[&str]) -> NetworkSpec {
    NetworkSpec { allowed_hosts: strings(hosts), ..NetworkSpec::default() }
}

fn compile(spec: &NetworkSpec) -> Policy {
    compile_with(spec, &[])
}

fn compile_with(spec: &NetworkSpec, add_hosts: &[(&str, &str)]) -> Policy {
    let add_hosts: Vec<_> =
        add_hosts.iter().map(|&(name, ip)| (ip.parse().unwrap(), name.to_owned())).collect();
    let values = spec.secrets.keys().map(|name| (name.clone(), value())).collect();
    Policy::compile(spec, &add_hosts, values).unwrap()
}

fn value() -> SecretValue {
    SecretValue::new("correct horse battery".to_owned()).unwrap()
}

fn sealed(hosts: &[&str]) -> Policy {
    compile(&allowing(hosts))
}

fn with_secret(hosts: &[&str]) -> NetworkSpec {
    let secret = SecretSpec { placeholder: "PLACEHOLDER".to_owned(), hosts: strings(hosts), mask: true };
    NetworkSpec { secrets: [("TOKEN".to_owned(), secret)].into(), ..NetworkSpec::default() }
}

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn entries(texts: &[&str]) -> Vec<Entry> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Whether a host may be reached, and why.
fn host(policy: &Policy, text: &str, port: u16) -> Result<String, &'static str> {
    let permit = policy.host(&Host::parse(text).unwrap(), port);
    permit.map(|permit| permit.rule().to_owned()).map_err(|denial| denial.reason.code())
}

/// Whether a name that was resolved to an address may be reached there.
fn admit(policy: &Policy, text: &str, port: u16, address: &str) -> Result<(), &'static str> {
    let permit = policy.host(&Host::parse(text).unwrap(), port).map_err(|denial| denial.reason.code())?;
    policy.admit(&permit, ip(address)).map(drop).map_err(|denial| denial.reason.code())
}

fn reach(
    policy: &Policy,
    decide: fn(&Policy, std::net::SocketAddr, &[HostName]) -> Result<Admitted, Denial>,
    to: &str,
    names: &[&str],
) -> Result<String, &'static str> {
    let names: Vec<_> = names.iter().map(|text| name(text)).collect();
    let admitted = decide(policy, to.parse().unwrap(), &names).map_err(|denial| denial.reason.code())?;
    assert_eq!(admitted.address().port(), to.parse::<std::net::SocketAddr>().unwrap().port());
    Ok(admitted.rule().to_owned())
}

const NOT_PUBLIC: [&str; 14] = [
    "10.0.0.1",
    "127.0.0.1",
    "0.0.0.0",
    "169.254.169.254",
    "100.64.0.1",
    "192.168.1.1",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fd00::1",
    "fe80::1",
    "::ffff:10.0.0.1",
    "64:ff9b::10.0.0.1",
];

#[test]
fn the_mode_is_that_of_what_was_given() {
    assert_eq!(compile(&NetworkSpec::default()).mode(), Mode::Open);
    assert!(!compile(&NetworkSpec::default()).looks_inside());
    assert_eq!(compile(&NetworkSpec { intercept: true, ..NetworkSpec::default() }).mode(), Mode::Observed);
    let rules = NetworkSpec { rules: vec![RuleSpec::default()], ..NetworkSpec::default() };
    assert_eq!(compile(&rules).mode(), Mode::Observed);
    assert_eq!(sealed(&["a.example"]).mode(), Mode::Sealed);
    assert_eq!(compile(&with_secret(&["a.example"])).mode(), Mode::Sealed);
    let through = NetworkSpec { passthrough_hosts: strings(&["a.example"]), ..NetworkSpec::default() };
    assert_eq!(compile(&through).mode(), Mode::Sealed);
}

#[test]
fn a_sealed_sandbox_stays_sealed_when_its_last_host_is_removed() {
    let policy = sealed(&["a.example"]).remove(&entries(&["a.example"]));
    assert_eq!(policy.mode(), Mode::Sealed);
    assert!(policy.allowed().is_empty());
    assert_eq!(host(&policy, "a.example", 443), Err("host_not_allowed"));
    assert_eq!(host(&policy, "8.8.8.8", 443), Err("host_not_allowed"));
    assert!(policy.resolve(&name("a.example")).is_err());
    assert_eq!(reach(&policy, Policy::address, "8.8.8.8:443", &["a.example"]), Err("host_not_allowed"));
}

#[test]
fn an_observed_sandbox_is_sealed_by_its_first_host_and_reopened_only_by_a_star() {
    let observed = compile(&NetworkSpec { intercept: true, ..NetworkSpec::default() });
    assert_eq!(observed.add(&[]).mode(), Mode::Observed);
    assert_eq!(observed.remove(&entries(&["a.example"])).mode(), Mode::Observed);
    let sealed = observed.add(&entries(&["a.example"]));
    assert_eq!(sealed.mode(), Mode::Sealed);
    assert!(host(&sealed, "b.example", 443).is_err());
    let reopened = sealed.add(&entries(&["*"]));
    assert_eq!(reopened.mode(), Mode::Observed);
    assert!(reopened.looks_inside());
    assert_eq!(host(&reopened, "b.example", 443).as_deref(), Ok("*"));
    for address in NOT_PUBLIC {
        assert_eq!(admit(&reopened, "b.example", 443, address), Err("private_address"), "{address}");
    }
    assert_eq!(reopened.remove(&entries(&["*"])).mode(), Mode::Sealed);
    // The one before has not changed.
    assert_eq!(sealed.allowed(), ["a.example"]);
    // On one port, it is an entry like others.
    assert_eq!(sealed.add(&entries(&["*:443"])).mode(), Mode::Sealed);
}

#[test]
fn only_allowed_hosts_are_reached_and_resolved_when_sealed() {
    let policy = sealed(&["api.example", "*.cdn.example", "db.example:5432", "9.9.9.9", "8.8.0.0/16:53"]);
    assert_eq!(host(&policy, "api.example", 443).as_deref(), Ok("api.example"));
    assert_eq!(host(&policy, "x.cdn.example", 80).as_deref(), Ok("*.cdn.example"));
    assert_eq!(host(&policy, "db.example", 5432).as_deref(), Ok("db.example:5432"));
    assert_eq!(host(&policy, "9.9.9.9", 443).as_deref(), Ok("9.9.9.9"));
    assert_eq!(host(&policy, "8.8.4.4", 53).as_deref(), Ok("8.8.0.0/16:53"));
    for (text, port) in [
        ("cdn.example", 443),
        ("api.example.attacker.example", 443),
        ("db.example", 443),
        ("8.8.4.4", 443),
        ("1.1.1.1", 443),
        ("attacker.example", 443),
    ] {
        assert_eq!(host(&policy, text, port), Err("host_not_allowed"), "{text}:{port}");
    }
    for text in ["api.example", "x.cdn.example", "db.example"] {
        assert!(policy.resolve(&name(text)).is_ok(), "{text}");
    }
    for text in ["attacker.example", "cdn.example", "data.in.labels.attacker.example", "localhost"] {
        assert_eq!(policy.resolve(&name(text)).unwrap_err().reason, Reason::HostNotAllowed, "{text}");
    }
}

#[test]
fn the_hosts_of_secrets_are_allowed_and_cannot_be_removed() {
    let policy = compile(&with_secret(&["api.example", "http://plain.example"]));
    assert_eq!(host(&policy, "api.example", 443).as_deref(), Ok("api.example of secret TOKEN"));
    assert!(host(&policy, "plain.example", 80).is_ok());
    assert!(policy.resolve(&name("api.example")).is_ok());
    assert!(policy.allowed().is_empty());
    let removed = policy.remove(&entries(&["api.example"]));
    assert!(host(&removed, "api.example", 443).is_ok());
    assert!(host(&removed, "other.example", 443).is_err());
}

#[test]
fn an_allowed_name_with_a_private_address_is_not_reached() {
    for policy in [
        compile(&NetworkSpec::default()),
        compile(&NetworkSpec { intercept: true, ..NetworkSpec::default() }),
        sealed(&["good.example"]),
        sealed(&["*"]),
        compile(&with_secret(&["good.example"])),
    ] {
        assert_eq!(admit(&policy, "good.example", 443, "9.9.9.9"), Ok(()));
        assert!(policy.answerable(&name("good.example"), ip("9.9.9.9")).is_ok());
        for address in NOT_PUBLIC {
            assert_eq!(admit(&policy, "good.example", 443, address), Err("private_address"), "{address}");
            assert!(policy.answerable(&name("good.example"), ip(address)).is_err(), "{address}");
            let to = format!("{}:443", Host::from(ip(address)));
            let to = if ip(address).to_canonical().is_ipv6() { format!("[{}]:443", ip(address)) } else { to };
            assert_eq!(reach(&policy, Policy::address, &to, &["good.example"]), Err("private_address"));
            assert_eq!(reach(&policy, Policy::opaque, &to, &["good.example"]), Err("private_address"));
            assert_eq!(host(&policy, address, 443), Err("private_address"));
        }
    }
}

#[test]
fn a_private_address_is_reached_when_the_user_names_it() {
    let policy = sealed(&["good.example", "10.0.0.7", "192.168.0.0/24:5432"]);
    assert_eq!(host(&policy, "10.0.0.7", 80).as_deref(), Ok("10.0.0.7"));
    assert_eq!(admit(&policy, "good.example", 80, "10.0.0.7"), Ok(()));
    assert_eq!(admit(&policy, "good.example", 80, "10.0.0.8"), Err("private_address"));
    assert_eq!(reach(&policy, Policy::address, "10.0.0.7:22", &[]).as_deref(), Ok("10.0.0.7"));
    assert_eq!(reach(&policy, Policy::opaque, "10.0.0.7:443", &[]).as_deref(), Ok("10.0.0.7"));
    assert_eq!(
        reach(&policy, Policy::address, "192.168.0.9:5432", &[]).as_deref(),
        Ok("192.168.0.0/24:5432")
    );
    assert_eq!(reach(&policy, Policy::address, "192.168.0.9:80", &[]), Err("private_address"));
    // It may be looked up for the port on which it may be reached.
    assert!(policy.answerable(&name("good.example"), ip("192.168.0.9")).is_ok());
    assert!(policy.answerable(&name("good.example"), ip("192.168.1.9")).is_err());
}

#[test]
fn a_block_of_the_whole_internet_does_not_mean_private_addresses() {
    let policy = sealed(&["0.0.0.0/0", "::/0"]);
    assert!(host(&policy, "9.9.9.9", 443).is_ok());
    for address in NOT_PUBLIC {
        assert_eq!(host(&policy, address, 443), Err("private_address"), "{address}");
    }
}

#[test]
fn an_added_host_is_reached_at_its_own_address_by_its_own_name_only() {
    for hosts in [&[][..], &["db.example", "other.example"]] {
        let policy = compile_with(&allowing(hosts), &[("db.example", "10.0.0.5"), ("DB.example", "fd00::5")]);
        assert_eq!(policy.added_host(&name("db.example")), [ip("10.0.0.5"), ip("fd00::5")]);
        assert!(policy.added_host(&name("other.example")).is_empty());
        assert_eq!(admit(&policy, "db.example", 5432, "10.0.0.5"), Ok(()));
        assert_eq!(admit(&policy, "db.example", 5432, "10.0.0.6"), Err("private_address"));
        assert_eq!(admit(&policy, "other.example", 5432, "10.0.0.5"), Err("private_address"));
        assert!(policy.answerable(&name("other.example"), ip("10.0.0.5")).is_err());
        // Its name is in the guest's own /etc/hosts: nothing was resolved.
        assert!(reach(&policy, Policy::address, "10.0.0.5:5432", &[]).is_ok());
        assert!(reach(&policy, Policy::opaque, "[fd00::5]:5432", &[]).is_ok());
        assert_eq!(reach(&policy, Policy::address, "10.0.0.6:5432", &["db.example"]), Err("private_address"));
        assert_eq!(host(&policy, "10.0.0.5", 5432), Err("private_address"));
    }
}

#[test]
fn an_added_host_is_not_allowed_by_being_added() {
    let policy =
        compile_with(&allowing(&["good.example"]), &[("db.example", "10.0.0.5"), ("www.example", "9.9.9.9")]);
    assert_eq!(host(&policy, "db.example", 5432), Err("host_not_allowed"));
    assert_eq!(reach(&policy, Policy::address, "10.0.0.5:5432", &[]), Err("host_not_allowed"));
    assert_eq!(reach(&policy, Policy::address, "9.9.9.9:443", &[]), Err("host_not_allowed"));
    let denial = policy.address("10.0.0.5:5432".parse().unwrap(), &[]).unwrap_err();
    assert_eq!(denial.hint().as_deref(), Some("allow it with --allow-host db.example:5432"));
}

#[test]
fn this_host_is_not_reached_because_private_addresses_are_allowed() {
    let spec = NetworkSpec { block_private_ips: false, ..allowing(&["good.example"]) };
    let policy = compile(&spec);
    for address in ["10.0.0.1", "192.168.0.1", "fd00::1", "100.64.0.1"] {
        assert_eq!(admit(&policy, "good.example", 80, address), Ok(()), "{address}");
    }
    for address in [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "::",
        "::1",
        "169.254.169.254",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
    ] {
        assert_eq!(admit(&policy, "good.example", 80, address), Err("private_address"), "{address}");
    }
    let listed = policy.add(&entries(&["127.0.0.1:8080"]));
    assert_eq!(admit(&listed, "good.example", 8080, "127.0.0.1"), Ok(()));
    assert_eq!(admit(&listed, "good.example", 80, "127.0.0.1"), Err("private_address"));
    let added = compile_with(&spec, &[("good.example", "127.0.0.1")]);
    assert_eq!(admit(&added, "good.example", 80, "127.0.0.1"), Ok(()));
}

#[test]
fn the_hosts_own_public_address_is_not_reached_unless_it_is_named() {
    let own = |spec: &NetworkSpec, add_hosts: &[(&str, &str)]| {
        compile_with(spec, add_hosts).with_own_addresses([ip("9.9.9.9"), ip("2606::9"), ip("192.168.0.9")])
    };
    let spec = NetworkSpec { block_private_ips: false, ..allowing(&["good.example"]) };
    for policy in [own(&NetworkSpec::default(), &[]), own(&allowing(&["*"]), &[]), own(&spec, &[])] {
        for address in
            ["9.9.9.9", "2606::9", "::ffff:9.9.9.9", "64:ff9b::9.9.9.9", "2002:909:909::1", "192.168.0.9"]
        {
            assert_eq!(admit(&policy, "good.example", 80, address), Err("private_address"), "{address}");
            assert_eq!(host(&policy, address, 80), Err("private_address"), "{address}");
        }
        assert_eq!(admit(&policy, "good.example", 80, "9.9.9.10"), Ok(()));
        let listed = policy.add(&entries(&["good.example", "9.9.9.9"]));
        assert_eq!(admit(&listed, "good.example", 80, "9.9.9.9"), Ok(()));
    }
    let block = own(&allowing(&["9.9.9.0/24"]), &[]);
    assert_eq!(host(&block, "9.9.9.9", 80), Err("private_address"));
    let added = own(&spec, &[("good.example", "9.9.9.9")]);
    assert_eq!(admit(&added, "good.example", 80, "9.9.9.9"), Ok(()));
}

#[test]
fn a_shared_address_is_reached_only_through_a_name_that_is_allowed() {
    let policy = sealed(&["good.example"]);
    assert_eq!(
        reach(&policy, Policy::address, "9.9.9.9:443", &["good.example"]).as_deref(),
        Ok("good.example")
    );
    assert_eq!(
        reach(&policy, Policy::address, "9.9.9.9:443", &["bad.example", "good.example"]).as_deref(),
        Ok("good.example")
    );
    // Nobody has asked for a name with that address.
    assert_eq!(reach(&policy, Policy::address, "9.9.9.9:443", &[]), Err("address_not_resolved"));
    assert_eq!(reach(&policy, Policy::address, "9.9.9.9:443", &["bad.example"]), Err("host_not_allowed"));
}

#[test]
fn what_is_neither_tls_nor_http_needs_its_port_on_the_ports_of_the_web() {
    let policy = sealed(&["git.example", "odd.example:443", "9.9.9.9"]);
    assert_eq!(reach(&policy, Policy::opaque, "8.8.8.8:22", &["git.example"]).as_deref(), Ok("git.example"));
    for to in ["8.8.8.8:443", "8.8.8.8:80"] {
        assert_eq!(reach(&policy, Policy::opaque, to, &["git.example"]), Err("unknown_protocol"));
    }
    assert_eq!(
        reach(&policy, Policy::opaque, "8.8.8.8:443", &["odd.example"]).as_deref(),
        Ok("odd.example:443")
    );
    assert_eq!(
        reach(&policy, Policy::opaque, "8.8.8.8:443", &["git.example", "odd.example"]).as_deref(),
        Ok("odd.example:443")
    );
    assert_eq!(reach(&policy, Policy::opaque, "9.9.9.9:443", &[]).as_deref(), Ok("9.9.9.9"));
    assert_eq!(reach(&policy, Policy::opaque, "8.8.8.8:22", &[]), Err("address_not_resolved"));
    // The port of a secret's host says where the secret goes.
    let secret = compile(&with_secret(&["api.example:443", "9.9.9.9"]));
    assert_eq!(reach(&secret, Policy::opaque, "8.8.8.8:443", &["api.example"]), Err("unknown_protocol"));
    assert_eq!(reach(&secret, Policy::opaque, "9.9.9.9:443", &[]), Err("unknown_protocol"));
    let open = compile(&NetworkSpec { intercept: true, ..NetworkSpec::default() });
    assert!(reach(&open, Policy::opaque, "8.8.8.8:443", &[]).is_ok());
}

#[test]
fn a_permit_for_an_address_is_for_no_other() {
    let policy = sealed(&["9.9.9.9", "8.8.8.8"]);
    assert_eq!(admit(&policy, "9.9.9.9", 443, "9.9.9.9"), Ok(()));
    assert_eq!(admit(&policy, "9.9.9.9", 443, "::ffff:9.9.9.9"), Ok(()));
    assert_eq!(admit(&policy, "9.9.9.9", 443, "8.8.8.8"), Err("address_not_resolved"));
}

#[test]
fn passthrough_hosts_are_allowed_until_they_are_removed() {
    let policy =
        compile(&NetworkSpec { passthrough_hosts: strings(&["pin.example:443"]), ..NetworkSpec::default() });
    assert!(policy.passthrough(&name("pin.example"), 443));
    assert!(!policy.passthrough(&name("pin.example"), 8443));
    assert!(!policy.passthrough(&name("other.example"), 443));
    assert_eq!(host(&policy, "pin.example", 443).as_deref(), Ok("pin.example:443"));
    assert_eq!(policy.allowed(), ["pin.example:443"]);
    assert!(host(&policy.remove(&entries(&["pin.example:443"])), "pin.example", 443).is_err());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |spec: &NetworkSpec| {
        let values = spec.secrets.keys().map(|name| (name.clone(), value())).collect();
        Policy::compile(spec, &[], values).unwrap_err()
    };
    assert!(matches!(refused(&allowing(&["https://a.example/"])), PolicyError::Entry(_)));
    let through =
        |hosts: &[&str]| NetworkSpec { passthrough_hosts: strings(hosts), ..NetworkSpec::default() };
    assert!(matches!(refused(&through(&["9.9.9.9"])), PolicyError::PassthroughAddress(_)));
    let both =
        NetworkSpec { secrets: with_secret(&["a.example"]).secrets, ..through(&["*.example", "a.example"]) };
    assert!(matches!(refused(&both), PolicyError::SecretBehindPassthrough { .. }));
    assert!(matches!(refused(&with_secret(&[])), PolicyError::Secret(_)));
    let odd =
        Policy::compile(&NetworkSpec::default(), &[(ip("10.0.0.1"), "a b".to_owned())], BTreeMap::new());
    assert!(matches!(odd, Err(PolicyError::AddedHost { .. })));
    let rule = RuleSpec { callback_id: Some("1".to_owned()), ..RuleSpec::default() };
    let rules = NetworkSpec { rules: vec![rule], ..NetworkSpec::default() };
    assert!(matches!(refused(&rules), PolicyError::Rule(_)));
    for error in [refused(&allowing(&["10.*"])), refused(&with_secret(&["*"])), refused(&both)] {
        assert_eq!(error.kind(), Kind::InvalidInput);
        assert!(error.hint().is_some(), "{error}");
    }
}

#[test]
fn a_policy_is_shown_without_values() {
    let policy = compile(&with_secret(&["api.example"]));
    let shown = format!("{policy:?} {:#?} {:?}", policy, policy.secrets());
    assert!(shown.contains("PLACEHOLDER") && shown.contains("TOKEN"), "{shown}");
    assert!(!shown.contains("horse"), "{shown}");
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(std::net::Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::from(std::net::Ipv6Addr::from(bits))),
        any::<u32>().prop_map(|bits| IpAddr::from(std::net::Ipv4Addr::from(bits).to_ipv6_mapped())),
        (0..NOT_PUBLIC.len()).prop_map(|i| ip(NOT_PUBLIC[i])),
    ]
}

fn any_list() -> impl Strategy<Value = Vec<&'static str>> {
    let entries = [
        "*",
        "*:443",
        "a.example",
        "*.example",
        "b.example:22",
        "9.9.9.9",
        "0.0.0.0/0",
        "::/0",
        "[2000::/3]:443",
    ];
    proptest::collection::vec((0..entries.len()).prop_map(move |i| entries[i]), 0..5)
}

proptest! {
    #[test]
    fn no_private_address_is_ever_admitted_that_nobody_named(
        list in any_list(), intercept in any::<bool>(), address in any_address(), port in 1..=u16::MAX, a in any::<bool>(),
    ) {
        let policy = compile(&NetworkSpec { intercept, ..allowing(&list) });
        let names = [name(if a { "a.example" } else { "b.example" })];
        if class(address) == Class::Public {
            return Ok(());
        }
        let to = std::net::SocketAddr::new(address, port);
        prop_assert!(policy.address(to, &names).is_err());
        prop_assert!(policy.opaque(to, &names).is_err());
        prop_assert!(policy.host(&Host::from(address), port).is_err());
        prop_assert!(policy.answerable(&names[0], address).is_err());
        if let Ok(permit) = policy.host(&Host::Name(names[0].clone()), port) {
            prop_assert!(policy.admit(&permit, address).is_err());
        }
    }

    #[test]
    fn removing_hosts_never_lets_anything_through_that_was_refused(
        before in any_list(), removed in any_list(), address in any_address(), port in 1..=u16::MAX,
    ) {
        let policy = sealed(&["first.example"]).add(&entries(&before));
        let less = policy.remove(&entries(&removed));
        let names = [name("a.example"), name("b.example")];
        let to = std::net::SocketAddr::new(address, port);
        prop_assert!(policy.address(to, &names).is_ok() || less.address(to, &names).is_err());
        prop_assert!(policy.opaque(to, &names).is_ok() || less.opaque(to, &names).is_err());
        for host in [Host::from(address), names[0].clone().into(), names[1].clone().into()] {
            prop_assert!(policy.host(&host, port).is_ok() || less.host(&host, port).is_err());
        }
    }

    #[test]
    fn what_is_opaque_passes_only_where_a_connection_does(
        list in any_list(), address in any_address(), port in 1..=u16::MAX,
    ) {
        let policy = sealed(&["first.example"]).add(&entries(&list));
        let to = std::net::SocketAddr::new(address, port);
        let names = [name("a.example")];
        prop_assert!(policy.opaque(to, &names).is_err() || policy.address(to, &names).is_ok());
    }
}
