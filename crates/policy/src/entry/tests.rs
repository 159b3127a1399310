//! What entries mean, and what they must not.

use proptest::prelude::*;

use super::*;

fn entry(text: &str) -> Entry {
    text.parse().unwrap()
}

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn allows(text: &str, host: &str, port: u16) -> bool {
    entry(text).allows(&Host::parse(host).unwrap(), port)
}

fn reason(text: &str) -> EntryReason {
    text.parse::<Entry>().unwrap_err().reason
}

#[test]
fn a_name_is_that_name_only() {
    assert!(allows("Example.com", "example.com", 443));
    assert!(allows("example.com", "EXAMPLE.com", 22));
    for other in ["www.example.com", "xexample.com", "example.com.attacker.example", "example.co", "com"] {
        assert!(!allows("example.com", other, 443), "{other}");
    }
}

#[test]
fn a_star_in_front_is_every_subdomain_and_not_the_domain() {
    for host in ["a.example.com", "a.b.c.example.com", "example.com.example.com"] {
        assert!(allows("*.example.com", host, 443), "{host}");
    }
    for host in ["example.com", "notexample.com", "a.example.com.attacker.example", "a.example.org"] {
        assert!(!allows("*.example.com", host, 443), "{host}");
    }
}

#[test]
fn a_star_beside_characters_ends_at_the_dot() {
    for host in ["api-1.example.com", "api-a-b.example.com"] {
        assert!(allows("api-*.example.com", host, 443), "{host}");
    }
    for host in ["api-x.attacker.example.com", "api.example.com", "xapi-1.example.com"] {
        assert!(!allows("api-*.example.com", host, 443), "{host}");
    }
    assert!(!allows("api*.example.com", "api.attacker.example.com", 443));
    assert!(allows("*-prod-*.example.com", "a-prod-b.example.com", 443));
    assert!(!allows("*-prod-*.example.com", "a-prod.b-prod-c.example.com", 443));
}

#[test]
fn a_star_that_is_a_label_in_the_middle_or_at_the_end_is_some_labels() {
    assert!(allows("s3.*.example.com", "s3.eu.example.com", 443));
    assert!(allows("s3.*.example.com", "s3.eu.west.example.com", 443));
    assert!(!allows("s3.*.example.com", "s3.example.com", 443));
    assert!(allows("example.*", "example.co.uk", 443));
    assert!(!allows("example.*", "example", 443));
    assert!(allows("*.*.com", "a.b.com", 443));
    assert!(!allows("*.*.com", "b.com", 443));
}

#[test]
fn a_star_alone_is_everything() {
    for host in ["a", "a.b.c", "1.2.3.4", "2606:4700::1"] {
        assert!(allows("*", host, 1), "{host}");
        assert!(allows("*:443", host, 443), "{host}");
        assert!(!allows("*:443", host, 80), "{host}");
    }
    assert!(entry("*").is_everything() && !entry("*:443").is_everything() && !entry("*.com").is_everything());
}

#[test]
fn a_port_is_that_port_only() {
    assert!(allows("db.example:5432", "db.example", 5432));
    assert!(!allows("db.example:5432", "db.example", 443));
    assert!(allows("[2606::1]:443", "2606::1", 443));
    assert!(!allows("[2606::1]:443", "2606::1", 80));
    assert!(allows("9.0.0.0/8:443", "9.9.9.9", 443));
    assert!(!allows("9.0.0.0/8:443", "9.9.9.9", 80));
}

#[test]
fn an_address_is_that_address_however_it_is_written() {
    assert!(allows("10.0.0.7", "::ffff:10.0.0.7", 80));
    assert!(allows("::ffff:10.0.0.7", "10.0.0.7", 80));
    assert!(allows("2606:0:0::1", "2606::1", 80));
    assert!(!allows("10.0.0.7", "10.0.0.70", 80));
    assert!(!allows("10.0.0.7", "64:ff9b::10.0.0.7", 80));
    assert!(allows("10.1.2.3/8", "10.200.0.1", 80));
    assert!(allows("::ffff:10.0.0.0/104", "10.200.0.1", 80));
    assert!(!allows("10.0.0.0/8", "11.0.0.1", 80));
    assert!(!allows("::/0", "10.0.0.1", 80));
}

#[test]
fn entries_are_written_as_they_can_be_read() {
    for (text, written) in [
        (" Example.COM ", "example.com"),
        ("*.Example.com:8443", "*.example.com:8443"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[::1]:80", "[::1]:80"),
        ("10.9.9.9/8", "10.0.0.0/8"),
        ("fd00::/8", "fd00::/8"),
        ("[fd00::/8]:5432", "[fd00::/8]:5432"),
        ("10.0.0.0/8:22", "10.0.0.0/8:22"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
    ] {
        assert_eq!(entry(text).to_string(), written);
        assert_eq!(entry(written), entry(text));
    }
}

#[test]
fn odd_entries_are_refused() {
    for text in ["https://example.com", "http://example.com/"] {
        assert_eq!(reason(text), EntryReason::Url);
    }
    for text in ["10.0.*", "*.1", "192.168.*.*", "1*", "*.*"] {
        assert_eq!(reason(text), EntryReason::NumberGlob, "{text}");
    }
    for text in ["example.com/path", "10.0.0.0/33", "10.0.0/8", "/", "a/8:80", "*/0"] {
        assert_eq!(reason(text), EntryReason::Block, "{text}");
    }
    for (text, host) in [
        ("", InvalidHost::Empty),
        (":443", InvalidHost::Empty),
        ("127.1", InvalidHost::Number),
        ("user@example.com", InvalidHost::UserInfo),
        ("example.com.", InvalidHost::TrailingDot),
        ("*.example.com.", InvalidHost::TrailingDot),
        ("*..example.com", InvalidHost::Label),
        ("*.exa mple.com", InvalidHost::Character(' ')),
        ("bü*.example", InvalidHost::Character('ü')),
        ("example.com:99999", InvalidHost::Port),
        ("example.com:*", InvalidHost::Port),
        ("*:0", InvalidHost::Port),
        ("[example.com]:443", InvalidHost::Brackets),
        ("[::1]x", InvalidHost::Brackets),
        ("a,b", InvalidHost::Character(',')),
    ] {
        assert_eq!(reason(text), EntryReason::Host(host), "{text:?}");
    }
    assert_eq!(reason(&"a".repeat(2000)), EntryReason::TooLong);
    assert!("x\u{0}y".parse::<Entry>().unwrap_err().hint().is_some());
}

#[test]
fn only_a_block_that_is_private_as_a_whole_means_private_addresses() {
    let means = |text: &str, address: &str| {
        let address: IpAddr = address.parse().unwrap();
        entry(text).means(address, &Range::of(address).unwrap(), Some(80))
    };
    for (text, address) in [
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.1.0.0/16", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3"),
        ("fd00::/8", "fd00::1"),
        ("127.0.0.0/8", "127.0.0.1"),
        ("127.0.0.1/32", "127.0.0.1"),
        ("169.254.169.254", "169.254.169.254"),
        ("10.1.2.3:80", "10.1.2.3"),
    ] {
        assert!(means(text, address), "{text} {address}");
    }
    for (text, address) in [
        ("0.0.0.0/0", "10.1.2.3"),
        ("10.0.0.0/7", "10.1.2.3"),
        ("*", "10.1.2.3"),
        ("*:80", "10.1.2.3"),
        ("0.0.0.0/0", "127.0.0.1"),
        ("::/0", "::1"),
        ("::/0", "fd00::1"),
        ("169.254.0.0/16", "169.254.169.254"),
        ("fc00::/7", "fd00:ec2::254"),
        ("64:ff9b::/96", "64:ff9b::10.0.0.1"),
        ("10.1.2.3:443", "10.1.2.3"),
        ("10.0.0.0/8", "192.168.0.1"),
    ] {
        assert!(!means(text, address), "{text} {address}");
    }
}

#[test]
fn entries_cover_what_is_plainly_theirs() {
    for (entry_, other) in
        [("*.a.example", "x.a.example"), ("a.example", "a.example:443"), ("*", "a.example")]
    {
        assert!(entry(entry_).covers(&entry(other)), "{entry_} {other}");
    }
    for (entry_, other) in [
        ("a.example:443", "a.example"),
        ("a.example:443", "a.example:80"),
        ("*", "*.a.example"),
        ("*", "1.2.3.4"),
    ] {
        assert!(!entry(entry_).covers(&entry(other)), "{entry_} {other}");
    }
}

/// What a pattern means, said in the slow and plain way.
fn matches_plainly(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((&"*", rest)), Some(_)) => (1..=name.len()).any(|n| matches_plainly(rest, &name[n..])),
        (Some((first, rest)), Some((label, name))) => {
            label_plainly(first, label) && matches_plainly(rest, name)
        }
        _ => false,
    }
}

fn label_plainly(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == label,
        Some((before, rest)) => label
            .strip_prefix(before)
            .is_some_and(|label| (0..=label.len()).any(|n| label_plainly(rest, &label[n..]))),
    }
}

proptest! {
    #[test]
    fn a_pattern_matches_what_its_labels_match(pattern in "[ab*]{1,4}(\\.[ab*]{1,3}){0,4}", host in "[ab]{1,3}(\\.[ab]{1,3}){0,5}") {
        if let Ok(parsed) = Pattern::parse(&pattern) {
            let labels: Vec<&str> = pattern.split('.').collect();
            let plain = matches_plainly(&labels, &host.split('.').collect::<Vec<_>>());
            prop_assert_eq!(parsed.matches(&name(&host)), plain, "{} {}", pattern, host);
        }
    }

    #[test]
    fn an_entry_is_the_same_entry_when_it_is_written_out(text in "\\PC{0,60}|[a-z0-9.:*/\\[\\]-]{0,30}") {
        if let Ok(entry) = text.parse::<Entry>() {
            prop_assert_eq!(entry.to_string().parse::<Entry>(), Ok(entry));
        }
    }

    #[test]
    fn a_subdomain_glob_never_matches_another_domain(host in "[a-z]{1,5}(\\.[a-z]{1,5}){0,3}") {
        let matched = entry("*.good.example").allows_name(&name(&host), 443);
        prop_assert_eq!(matched, host.ends_with(".good.example"));
        let under = format!("{host}.good.example");
        prop_assert!(entry("*.good.example").allows_name(&name(&under), 443));
    }
}

#[test]
fn a_pattern_of_many_stars_takes_no_long_time() {
    let pattern = Pattern::parse(&format!("{}b", "*a".repeat(30))).unwrap();
    assert!(!pattern.matches(&name(&"a".repeat(60))));
}
