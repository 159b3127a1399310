//! Attacks with the spelling of hosts.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Result<String, InvalidHost> {
    HostName::parse(text).map(|name| name.to_string())
}

#[test]
fn names_are_lower_cased() {
    assert_eq!(name("API.Example.COM").as_deref(), Ok("api.example.com"));
    assert_eq!(name("localhost").as_deref(), Ok("localhost"));
    assert_eq!(name("_dmarc.x_y.example").as_deref(), Ok("_dmarc.x_y.example"));
    assert_eq!(name("r3---sn-4g5e6nsz.example").as_deref(), Ok("r3---sn-4g5e6nsz.example"));
    assert_eq!(name("xn--bcher-kva.example").as_deref(), Ok("xn--bcher-kva.example"));
    assert_eq!(name("1password.com").as_deref(), Ok("1password.com"));
}

#[test]
fn a_trailing_dot_is_refused() {
    assert_eq!(name("example.com."), Err(InvalidHost::TrailingDot));
    assert_eq!(name("example.com.."), Err(InvalidHost::TrailingDot));
    assert_eq!(name("."), Err(InvalidHost::TrailingDot));
    assert_eq!(Authority::parse("example.com.:443"), Err(InvalidHost::TrailingDot));
}

#[test]
fn a_name_with_nul_or_percent_or_space_is_refused() {
    for (text, odd) in [
        ("good.example\0.attacker.example", '\0'),
        ("good.example%00.attacker.example", '%'),
        ("good.example%2eattacker.example", '%'),
        ("good.example attacker.example", ' '),
        ("good.example\r\nhost: attacker.example", '\r'),
        ("good.example/", '/'),
        ("good.example#", '#'),
        ("good.example\\", '\\'),
        ("good.example?x", '?'),
        ("good.example,attacker.example", ','),
        ("*.example", '*'),
        ("good．example", '．'),
        ("good。example", '。'),
    ] {
        assert_eq!(name(text), Err(InvalidHost::Character(odd)), "{text:?}");
    }
}

#[test]
fn letters_beyond_ascii_are_refused_from_guests_and_converted_for_users() {
    assert_eq!(name("bücher.example"), Err(InvalidHost::Character('ü')));
    // A Kelvin sign and a full-width letter become ASCII by UTS 46, Cyrillic ones do not.
    assert_eq!(name("\u{212a}.example"), Err(InvalidHost::Character('\u{212a}')));
    let user = |text| HostName::from_user(text).map(|name| name.to_string());
    assert_eq!(user("Bücher.example").as_deref(), Ok("xn--bcher-kva.example"));
    assert_eq!(user("ｅxample.com").as_deref(), Ok("example.com"));
    assert_eq!(user("\u{430}pple.com").as_deref(), Ok("xn--pple-43d.com"));
    assert!(user("a\u{ad}.").is_err());
    assert!(user("１２７.1").is_err());
}

#[test]
fn an_address_that_is_written_as_inet_aton_reads_it_is_no_name() {
    for text in [
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "0x7f.0.0.0x1",
        "1.2.3.4.5",
        "0X7F.1",
        "256.1.1.1",
        "a.0x",
        "example.1",
    ] {
        assert_eq!(Host::parse(text), Err(InvalidHost::Number), "{text}");
    }
    for text in ["0xzz", "1.2.3.4a", "127.0.0.1.example"] {
        assert!(Host::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn an_ipv4_address_inside_an_ipv6_one_is_that_ipv4_address() {
    let inside = Host::parse("::ffff:10.0.0.1");
    assert_eq!(inside, Host::parse("10.0.0.1"));
    assert_eq!(Authority::parse("[::ffff:a00:1]:80").map(|authority| authority.host), inside);
}

#[test]
fn labels_and_names_have_their_lengths() {
    let label = "a".repeat(63);
    assert!(name(&label).is_ok());
    assert_eq!(name(&"a".repeat(64)), Err(InvalidHost::Label));
    let long = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(long.len(), 253);
    assert!(name(&long).is_ok());
    assert_eq!(name(&format!("{long}a")), Err(InvalidHost::TooLong));
    assert_eq!(name(&"a.".repeat(10_000)), Err(InvalidHost::TooLong));
    for text in ["a..b", ".a", "-a.b", "a-.b"] {
        assert_eq!(name(text), Err(InvalidHost::Label), "{text}");
    }
    assert_eq!(name(""), Err(InvalidHost::Empty));
}

#[test]
fn an_authority_is_a_host_and_maybe_a_port() {
    let parse = |text| Authority::parse(text).map(|authority| authority.to_string());
    assert_eq!(parse("Example.com").as_deref(), Ok("example.com"));
    assert_eq!(parse("example.com:8443").as_deref(), Ok("example.com:8443"));
    assert_eq!(parse("127.0.0.1:80").as_deref(), Ok("127.0.0.1:80"));
    assert_eq!(parse("[::1]").as_deref(), Ok("[::1]"));
    assert_eq!(parse("[2001:DB8:0::1]:443").as_deref(), Ok("[2001:db8::1]:443"));
    // A number with zeros in front is the same number.
    assert_eq!(parse("example.com:00080"), parse("example.com:80"));
}

#[test]
fn an_odd_authority_is_refused() {
    for (text, error) in [
        ("", InvalidHost::Empty),
        (":80", InvalidHost::Empty),
        ("user@example.com", InvalidHost::UserInfo),
        ("good.example:80@attacker.example", InvalidHost::UserInfo),
        ("@", InvalidHost::UserInfo),
        ("example.com:", InvalidHost::Port),
        ("example.com:0", InvalidHost::Port),
        ("example.com:65536", InvalidHost::Port),
        ("example.com:+80", InvalidHost::Port),
        ("example.com:000080", InvalidHost::Port),
        ("example.com:80:80", InvalidHost::Port),
        ("example.com: 80", InvalidHost::Port),
        ("example.com:８０", InvalidHost::Port),
        ("example.com:443\0", InvalidHost::Port),
        ("::1", InvalidHost::Empty),
        ("[::1", InvalidHost::Brackets),
        ("[::1]443", InvalidHost::Brackets),
        ("[::1]:", InvalidHost::Port),
        ("[127.0.0.1]", InvalidHost::Brackets),
        ("[example.com]", InvalidHost::Brackets),
        ("[fe80::1%eth0]", InvalidHost::Brackets),
        ("[]", InvalidHost::Brackets),
        ("]", InvalidHost::Character(']')),
    ] {
        assert_eq!(Authority::parse(text), Err(error), "{text:?}");
    }
}

proptest! {
    #[test]
    fn what_is_a_host_is_the_same_host_when_it_is_written_out(text in "\\PC{0,80}|[a-zA-Z0-9.:\\[\\]_-]{0,40}") {
        if let Ok(host) = Host::parse(&text) {
            prop_assert_eq!(Host::parse(&host.to_string()), Ok(host));
        }
        if let Ok(authority) = Authority::parse(&text) {
            prop_assert_eq!(Authority::parse(&authority.to_string()), Ok(authority));
        }
    }

    #[test]
    fn no_name_is_anything_to_parse_differently(text in "[a-zA-Z0-9._xX-]{1,40}") {
        if let Ok(name) = HostName::parse(&text) {
            prop_assert!(name.as_str().parse::<IpAddr>().is_err());
            prop_assert!(name.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)));
            prop_assert!(text.eq_ignore_ascii_case(name.as_str()));
        }
    }

    #[test]
    fn every_port_is_read_as_itself(port in 1..=u16::MAX) {
        let authority = Authority::parse(&format!("a.example:{port}"));
        prop_assert_eq!(authority.map(|authority| authority.port), Ok(Some(port)));
    }
}
