//! Addresses that must not be taken for public ones.

use proptest::prelude::*;

use super::*;

fn why(text: &str) -> Option<&'static str> {
    match class(text.parse().unwrap()) {
        Class::Public => None,
        Class::Private(why) => Some(why),
    }
}

#[test]
fn public_addresses_are_public() {
    for text in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::8",
        "2001:4860:4860::8888",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "::ffff:8.8.8.8",
        "3ffe::1",
    ] {
        assert_eq!(why(text), None, "{text}");
    }
}

#[test]
fn everything_that_is_not_plainly_a_host_on_the_internet_is_private() {
    for (text, expected) in [
        ("0.0.0.0", "this network"),
        ("0.1.2.3", "this network"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("10.0.0.0", "RFC 1918"),
        ("10.255.255.255", "RFC 1918"),
        ("172.16.0.0", "RFC 1918"),
        ("172.31.255.255", "RFC 1918"),
        ("192.168.0.1", "RFC 1918"),
        ("169.254.0.1", "link-local"),
        ("169.254.169.254", METADATA),
        ("100.100.100.200", METADATA),
        ("168.63.129.16", METADATA),
        ("192.0.0.192", METADATA),
        ("100.64.0.0", "shared by a provider's customers"),
        ("100.127.255.255", "shared by a provider's customers"),
        ("192.0.0.8", "for protocols"),
        ("192.0.2.1", "documentation"),
        ("198.51.100.1", "documentation"),
        ("203.0.113.255", "documentation"),
        ("192.88.99.1", "6to4 relay"),
        ("198.18.0.0", "benchmarks"),
        ("198.19.255.255", "benchmarks"),
        ("224.0.0.1", "multicast or reserved"),
        ("239.255.255.255", "multicast or reserved"),
        ("240.0.0.0", "multicast or reserved"),
        ("255.255.255.255", "multicast or reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::7f00:1", "not global unicast"),
        ("::ffff:0:10.0.0.1", "not global unicast"),
        ("100::1", "not global unicast"),
        ("5f00::1", "not global unicast"),
        ("4000::", "not global unicast"),
        ("fec0::1", "not global unicast"),
        ("fc00::1", "unique local"),
        ("fdff::1", "unique local"),
        ("fd00:ec2::254", METADATA),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
        ("2001::1", "Teredo"),
        ("2001:2::1", "for protocols"),
        ("2001:20::1", "for protocols"),
        ("2001:db8::1", "documentation"),
        ("3fff::1", "documentation"),
        ("64:ff9b:1::1", "translated, by a network's own prefix"),
    ] {
        assert_eq!(why(text), Some(expected), "{text}");
    }
}

#[test]
fn a_private_address_inside_an_ipv6_one_is_private() {
    for text in [
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0.0.0.0",
        "64:ff9b::10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:a00:1::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2002:c0a8:1::",
        "2002:e000:1::",
    ] {
        assert!(why(text).is_some(), "{text}");
    }
}

#[test]
fn only_what_leads_to_this_host_or_its_identity_is_its_own() {
    let own = |text: &str| Range::of(text.parse().unwrap()).is_some_and(|range| range.own);
    for text in
        ["127.0.0.1", "0.0.0.0", "::", "::1", "169.254.169.254", "64:ff9b::127.0.0.1", "::ffff:127.0.0.1"]
    {
        assert!(own(text), "{text}");
    }
    for text in ["10.0.0.1", "169.254.1.1", "fe80::1", "fd00::1", "224.0.0.1", "1.1.1.1"] {
        assert!(!own(text), "{text}");
    }
}

proptest! {
    /// Another source for the same question, which is stable for the classes that it knows.
    #[test]
    fn nothing_that_the_standard_library_calls_special_is_public(bits in any::<u32>(), low in 0..=255_u32) {
        for v4 in [Ipv4Addr::from(bits), Ipv4Addr::from(0xa9fe_a900 | low), Ipv4Addr::from(0x7f00_0000 | low)] {
            let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_broadcast()
                || v4.is_documentation() || v4.is_unspecified() || v4.is_multicast();
            for address in [IpAddr::V4(v4), IpAddr::V6(v4.to_ipv6_mapped()), IpAddr::V6(v4.to_ipv6_compatible())] {
                prop_assert!(!special || class(address) != Class::Public, "{}", address);
            }
            prop_assert_eq!(class(IpAddr::V4(v4)), class(IpAddr::V6(v4.to_ipv6_mapped())));
            let [a, b, c, d] = v4.octets().map(u16::from);
            for carrier in [
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d),
                Ipv6Addr::new(0x2002, a << 8 | b, c << 8 | d, 7, 1, 2, 3, 4),
            ] {
                prop_assert_eq!(class(IpAddr::V4(v4)), class(IpAddr::V6(carrier)));
            }
        }
    }

    #[test]
    fn no_ipv6_address_outside_global_unicast_is_public(bits in any::<u128>()) {
        let v6 = Ipv6Addr::from(bits);
        if v6.segments()[0] >> 13 != 1 && v6.to_ipv4_mapped().is_none() && carried(v6).is_none() {
            prop_assert_ne!(class(IpAddr::V6(v6)), Class::Public);
        }
    }

    #[test]
    fn a_range_holds_the_addresses_that_it_is_found_for(bits in any::<u128>(), v4 in any::<u32>()) {
        for address in [IpAddr::from(Ipv6Addr::from(bits)), IpAddr::from(Ipv4Addr::from(v4))] {
            if let Some(range) = Range::of(address) && range.block.addr().is_ipv4() == address.is_ipv4() {
                prop_assert!(range.block.contains(&address));
            }
        }
    }
}
