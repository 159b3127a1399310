//! What is remembered, for how long, and how much.

use std::net::Ipv4Addr;

use super::*;

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0100_0000 + number).into()
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn an_address_that_was_never_resolved_has_no_name() {
    let names = Names::new();
    names.record(&name("a.example"), &[address(1)], MINUTE);
    assert_eq!(names.of(address(2)), []);
    assert_eq!(names.of(address(1)), [name("a.example")]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_for_an_hour_after_its_time_to_live_and_then_no_more() {
    let names = Names::new();
    names.record(&name("a.example"), &[address(1)], MINUTE);
    tokio::time::advance(KEPT + MINUTE - Duration::from_secs(1)).await;
    assert_eq!(names.of(address(1)).len(), 1);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(names.of(address(1)), []);
}

#[tokio::test(start_paused = true)]
async fn a_mapped_address_is_the_address_that_it_maps() {
    let names = Names::new();
    names.record(&name("a.example"), &["::ffff:1.2.3.4".parse().unwrap()], MINUTE);
    assert_eq!(names.of("1.2.3.4".parse().unwrap()), [name("a.example")]);
    assert_eq!(names.of("::ffff:1.2.3.4".parse().unwrap()), [name("a.example")]);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_resolves_without_end_fills_no_memory() {
    let names = Names::new();
    for number in 0..MAX_ADDRESSES as u32 + 100 {
        tokio::time::advance(Duration::from_millis(1)).await;
        names.record(&name("a.example"), &[address(number)], MINUTE);
    }
    assert_eq!(names.lock().len(), MAX_ADDRESSES);
    assert_eq!(names.of(address(0)), [], "the oldest went");
    assert_eq!(names.of(address(MAX_ADDRESSES as u32 + 99)).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_names_one_address_without_end_fills_no_memory() {
    let names = Names::new();
    for number in 0..MAX_NAMES + 5 {
        tokio::time::advance(Duration::from_millis(1)).await;
        names.record(&name(&format!("n{number}.example")), &[address(1)], MINUTE);
    }
    let known = names.of(address(1));
    assert_eq!(known.len(), MAX_NAMES);
    assert!(!known.contains(&name("n0.example")) && known.contains(&name("n36.example")));
}
