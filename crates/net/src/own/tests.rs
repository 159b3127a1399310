use std::fs;

use api::network::NetworkSpec;

use super::*;

/// The one of the tests of `sys`.
#[expect(dead_code, clippy::duplicate_mod, reason = "`stack` has it, too, and needs all of it")]
#[path = "../../../sys/tests/tap/mod.rs"]
mod tap;

/// Runs the test of this name on a host with two addresses of each of two networks.
fn alone(name: &str, test: impl FnOnce()) {
    tap::alone(&format!("own::tests::{name}"), || {
        let _device = tap::Tap::new();
        let any = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let mut requests =
            sys::rtnetlink::Requests::new(rustix::net::netdevice::name_to_index(any, "tap0").unwrap());
        for (address, prefix) in [("9.9.9.1", 24), ("9.9.9.2", 24), ("2606::1", 64), ("2606::2", 64)] {
            requests.address(address.parse().unwrap(), prefix);
        }
        requests.send().unwrap();
        sys::loopback::bring_up().unwrap();
        test();
    });
}

/// Has the kernel of this network namespace do something that it does not do by default.
fn set(option: &str) {
    fs::write(format!("/proc/sys/net/{option}"), "1").expect("needs /proc/sys/net to be writable");
}

/// Which of these addresses an open network lets a guest reach.
fn reached<'a>(addresses: &[&'a str]) -> Vec<&'a str> {
    let policy = Policy::compile(&NetworkSpec::default(), &[], Default::default()).unwrap();
    let is_reached = |address: &&&str| {
        let address: IpAddr = address.parse().unwrap();
        told_of(&policy, address).address((address, 80).into(), &[]).is_ok()
    };
    addresses.iter().filter(is_reached).copied().collect()
}

const OWN: [&str; 2] = ["9.9.9.1", "2606::1"];
const SECOND: [&str; 2] = ["9.9.9.2", "2606::2"];
const MAPPED: [&str; 2] = ["::ffff:9.9.9.1", "::ffff:9.9.9.2"];
const OTHERS: [&str; 5] = ["9.9.9.9", "2606::9", "::ffff:9.9.9.9", "64:ff9b::9.9.9.9", "2002:909:909::1"];

#[test]
fn an_interface_has_its_address_and_no_other() {
    assert!(is_own([127, 0, 0, 1].into()));
    assert!(!is_own([203, 0, 113, 1].into()));
}

#[test]
fn the_host_is_not_reached_by_a_second_address_of_a_network() {
    alone("the_host_is_not_reached_by_a_second_address_of_a_network", || {
        assert!(reached(&OWN).is_empty());
        assert!(reached(&SECOND).is_empty());
        assert_eq!(reached(&OTHERS), OTHERS);
    });
}

#[test]
fn the_host_is_not_reached_by_an_ipv4_address_written_as_ipv6() {
    alone("the_host_is_not_reached_by_an_ipv4_address_written_as_ipv6", || {
        assert!(reached(&MAPPED).is_empty());
        set("ipv6/bindv6only");
        assert!(reached(&MAPPED).is_empty());
        assert_eq!(reached(&OTHERS), OTHERS);
    });
}

#[test]
fn the_host_is_not_reached_by_an_ipv4_address_that_is_translated() {
    alone("the_host_is_not_reached_by_an_ipv4_address_that_is_translated", || {
        assert!(reached(&["64:ff9b::9.9.9.1", "64:ff9b::9.9.9.2", "2002:909:902::1"]).is_empty());
    });
}

#[test]
fn the_host_is_told_from_others_where_sockets_may_have_any_address() {
    alone("the_host_is_told_from_others_where_sockets_may_have_any_address", || {
        set("ipv4/ip_nonlocal_bind");
        assert!(reached(&OWN).is_empty());
        assert!(reached(&SECOND).is_empty());
        assert_eq!(reached(&OTHERS), OTHERS);
    });
}

#[test]
fn what_the_kernel_does_not_answer_is_the_host() {
    assert!(!no_way(&io::Error::from(Errno::MFILE)));
    assert!(no_way(&io::Error::from(Errno::NETUNREACH)));
}
