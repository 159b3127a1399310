//! A guest's queries against name servers on loopback that count what they were asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use api::network::NetworkSpec;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::Name;

use super::*;
use crate::resolve::Upstream;
use crate::resolve::test_server::{Server, alias, https, name, record, text};

mod hostile;

const PUBLIC: &str = "93.184.216.34";
const PUBLIC_SIX: &str = "2606:2800:220:1::1";

struct Guest {
    service: Service,
    names: Names,
    events: Arc<Mutex<Vec<NetworkEvent>>>,
    policy: watch::Sender<Policy>,
}

fn policy(spec: &NetworkSpec) -> Policy {
    let added = [("10.1.2.3".parse().unwrap(), "box.corp".to_owned())];
    Policy::compile(spec, &added, BTreeMap::new()).unwrap()
}

fn sealed(hosts: &[&str]) -> NetworkSpec {
    NetworkSpec {
        allowed_hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        ..NetworkSpec::default()
    }
}

fn observed() -> NetworkSpec {
    NetworkSpec { intercept: true, ..NetworkSpec::default() }
}

impl Guest {
    fn new(spec: &NetworkSpec, server: &Server) -> Self {
        let (policy, receiver) = watch::channel(policy(spec));
        let (names, events) = (Names::new(), Arc::new(Mutex::new(Vec::new())));
        let resolver = Resolver::new(Upstream::Servers(vec![server.address]));
        let reporter = Reporter::new({
            let events = Arc::clone(&events);
            move |event| events.lock().unwrap().push(event)
        });
        Self { service: Service::new(receiver, resolver, names.clone(), reporter), names, events, policy }
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let bytes = self.service.answer(&query(name, kind, None), false).await.unwrap();
        assert!(bytes.len() <= 512);
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!(answer.metadata.id, 7);
        assert_eq!(answer.metadata.message_type, MessageType::Response);
        // Exactly, not only without regard to case.
        assert_eq!(answer.queries[0].name().to_string(), name);
        answer
    }

    async fn addresses(&self, name: &str, kind: RecordType) -> Vec<String> {
        let answer = self.ask(name, kind).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        given(&answer)
    }

    async fn code(&self, name: &str, kind: RecordType) -> ResponseCode {
        let answer = self.ask(name, kind).await;
        assert!(answer.answers.is_empty());
        answer.metadata.response_code
    }

    fn events(&self) -> Vec<NetworkEvent> {
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

fn query(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(size) = edns {
        query.set_edns(Edns::new().set_max_payload(size).clone());
    }
    query.to_vec().unwrap()
}

fn given(answer: &Message) -> Vec<String> {
    answer.answers.iter().map(|record| record.data.ip_addr().unwrap().to_string()).collect()
}

fn names_of(guest: &Guest, address: &str) -> Vec<String> {
    guest.names.of(address.parse().unwrap()).iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_name_that_is_not_allowed_does_not_exist_and_nobody_is_asked() {
    let server = Server::new(|ask| ask.addresses(&[PUBLIC])).await;
    let guest = Guest::new(&sealed(&["good.example"]), &server);
    for kind in [
        RecordType::A,
        RecordType::AAAA,
        RecordType::TXT,
        RecordType::HTTPS,
        RecordType::CNAME,
        RecordType::Unknown(999),
    ] {
        assert_eq!(guest.code("c2VjcmV0.evil.example.", kind).await, ResponseCode::NXDomain);
    }
    assert_eq!(guest.code("xgood.example.", RecordType::A).await, ResponseCode::NXDomain);
    assert_eq!(guest.code("a.good.example.", RecordType::A).await, ResponseCode::NXDomain);
    assert_eq!(server.asked(), []);
    let events = guest.events();
    assert_eq!(events.len(), 3, "one a name");
    assert!(events[0].blocked && events[0].url == "dns:c2vjcmv0.evil.example");
    assert_eq!(events[0].block_code.as_deref(), Some("host_not_allowed"));
}

#[tokio::test]
async fn an_allowed_name_is_no_tunnel() {
    let server =
        Server::new(|ask| ask.reply(vec![text(&ask.name(), "out"), record(&ask.name(), 60, PUBLIC)])).await;
    let guest = Guest::new(&sealed(&["good.example"]), &server);
    for kind in [
        RecordType::TXT,
        RecordType::MX,
        RecordType::CNAME,
        RecordType::NULL,
        RecordType::NS,
        RecordType::HTTPS,
    ] {
        assert_eq!(guest.code("good.example.", kind).await, ResponseCode::NoError);
    }
    assert_eq!(server.asked(), []);
    assert_eq!(guest.addresses("good.example.", RecordType::A).await, [PUBLIC]);
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn what_is_given_is_recorded_under_the_name_that_was_asked_for() {
    let server = Server::new(|ask| {
        ask.reply(vec![
            alias("good.example.", "cdn.example."),
            record(&name("cdn.example."), 60, PUBLIC),
            record(&name("cdn.example."), 9999, PUBLIC_SIX),
        ])
    })
    .await;
    let guest = Guest::new(&sealed(&["good.example"]), &server);
    let answer = guest.ask("good.example.", RecordType::A).await;
    assert_eq!(given(&answer), [PUBLIC]);
    assert_eq!(answer.answers[0].name, name("good.example."));
    assert!((1..=60).contains(&answer.answers[0].ttl));
    assert_eq!(names_of(&guest, PUBLIC), ["good.example"]);
    assert_eq!(names_of(&guest, PUBLIC_SIX), Vec::<String>::new(), "the guest did not ask for it");
    assert_eq!(guest.addresses("good.example.", RecordType::AAAA).await, [PUBLIC_SIX]);
    assert_eq!(names_of(&guest, PUBLIC_SIX), ["good.example"]);
}

#[tokio::test]
async fn private_addresses_are_taken_out_of_mixed_answers() {
    let mixed = ["127.0.0.1", "10.0.0.1", PUBLIC, "169.254.169.254", "100.64.0.1", "0.0.0.0"];
    let mixed_six = ["::1", "::ffff:10.0.0.1", "fe80::1", "fd00::1", "64:ff9b::a00:1", PUBLIC_SIX, "ff02::1"];
    let server = Server::new(move |ask| ask.addresses(&[&mixed[..], &mixed_six].concat())).await;
    for spec in [sealed(&["good.example"]), observed(), NetworkSpec::default()] {
        let guest = Guest::new(&spec, &server);
        assert_eq!(guest.addresses("good.example.", RecordType::A).await, [PUBLIC]);
        assert_eq!(guest.addresses("good.example.", RecordType::AAAA).await, [PUBLIC_SIX]);
        assert_eq!(names_of(&guest, "10.0.0.1"), Vec::<String>::new());
        assert!(guest.events().iter().all(|event| !event.blocked));
    }
}

#[tokio::test]
async fn a_name_with_private_addresses_only_has_none_and_that_is_told() {
    let server = Server::new(|ask| ask.addresses(&["10.0.0.1", "::1"])).await;
    for spec in [sealed(&["rebind.example"]), NetworkSpec::default()] {
        let guest = Guest::new(&spec, &server);
        assert_eq!(guest.code("rebind.example.", RecordType::A).await, ResponseCode::NoError);
        assert_eq!(guest.code("rebind.example.", RecordType::AAAA).await, ResponseCode::NoError);
        assert_eq!(names_of(&guest, "10.0.0.1"), Vec::<String>::new());
        let events = guest.events();
        assert_eq!(events.len(), 1);
        assert!(events[0].blocked && events[0].block_code.as_deref() == Some("private_address"));
    }
    let guest = Guest::new(&sealed(&["rebind.example", "10.0.0.1"]), &server);
    assert_eq!(guest.addresses("rebind.example.", RecordType::A).await, ["10.0.0.1"]);
    let guest = Guest::new(&NetworkSpec { block_private_ips: false, ..observed() }, &server);
    assert_eq!(guest.addresses("rebind.example.", RecordType::A).await, ["10.0.0.1"]);
}

#[tokio::test]
async fn a_name_that_is_rebound_to_a_private_address_loses_it() {
    let server = Server::new(|ask| {
        let address = if ask.before == 0 { PUBLIC } else { "127.0.0.1" };
        ask.reply(vec![record(&ask.name(), 0, address)])
    })
    .await;
    let guest = Guest::new(&sealed(&["good.example"]), &server);
    assert_eq!(guest.addresses("good.example.", RecordType::A).await, [PUBLIC]);
    // Another resolver, as if what this one remembers were over.
    let again = Guest::new(&sealed(&["good.example"]), &server);
    assert_eq!(again.addresses("good.example.", RecordType::A).await, Vec::<String>::new());
    assert_eq!(names_of(&again, "127.0.0.1"), Vec::<String>::new());
}

#[tokio::test]
async fn a_policy_that_changes_is_followed_at_once() {
    let server = Server::new(|ask| ask.addresses(&[PUBLIC])).await;
    let guest = Guest::new(&sealed(&["good.example"]), &server);
    assert_eq!(guest.addresses("good.example.", RecordType::A).await, [PUBLIC]);
    guest.policy.send_replace(policy(&sealed(&["other.example"])));
    assert_eq!(guest.code("good.example.", RecordType::A).await, ResponseCode::NXDomain);
    assert_eq!(guest.addresses("other.example.", RecordType::A).await, [PUBLIC]);
}

#[tokio::test]
async fn the_case_of_a_question_comes_back_and_does_not_matter() {
    let server = Server::new(|ask| ask.addresses(&[PUBLIC])).await;
    let guest = Guest::new(&sealed(&["good.example"]), &server);
    assert_eq!(guest.addresses("gOOd.eXamPLE.", RecordType::A).await, [PUBLIC]);
    assert_eq!(names_of(&guest, PUBLIC), ["good.example"]);
}

#[tokio::test]
async fn added_hosts_are_answered_here() {
    let server = Server::new(|ask| ask.addresses(&[PUBLIC])).await;
    for spec in [sealed(&["good.example"]), NetworkSpec::default()] {
        let guest = Guest::new(&spec, &server);
        assert_eq!(guest.addresses("box.corp.", RecordType::A).await, ["10.1.2.3"]);
        assert_eq!(guest.addresses("box.corp.", RecordType::AAAA).await, Vec::<String>::new());
        assert_eq!(guest.code("box.corp.", RecordType::TXT).await, ResponseCode::NoError);
        assert_eq!(names_of(&guest, "10.1.2.3"), ["box.corp"]);
    }
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn an_open_network_forwards_other_records_without_addresses_and_hints() {
    let server = Server::new(|ask| {
        let mut reply = ask.reply(vec![
            text(&ask.name(), "v=spf1"),
            record(&ask.name(), 9999, PUBLIC),
            https(&ask.name()),
        ]);
        // What `reply` leaves out for another family is what is to be put in here.
        reply.answers.push(record(&ask.name(), 60, "10.0.0.1"));
        reply.authorities = vec![record(&name("ns.example."), 60, "10.0.0.1"), https(&ask.name())];
        reply.additionals = vec![record(&name("ns.example."), 60, PUBLIC)];
        reply
    })
    .await;
    for spec in [NetworkSpec::default(), observed()] {
        let guest = Guest::new(&spec, &server);
        let answer = guest.ask("Some.example.", RecordType::TXT).await;
        assert_eq!(answer.answers, [text(&name("some.example."), "v=spf1")]);
        assert!(answer.authorities.is_empty() && answer.additionals.is_empty());
        assert_eq!(guest.code("some.example.", RecordType::HTTPS).await, ResponseCode::NoError);
        assert_eq!(guest.code("some.example.", RecordType::SVCB).await, ResponseCode::NoError);
        assert_eq!(guest.code("some.example.", RecordType::ANY).await, ResponseCode::NotImp);
        assert_eq!(guest.code("some.example.", RecordType::AXFR).await, ResponseCode::Refused);
        assert_eq!(guest.code("some.example.", RecordType::IXFR).await, ResponseCode::Refused);
    }
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn the_hosts_own_networks_are_not_looked_up_in_reverse() {
    let server = Server::new(|ask| ask.code(ResponseCode::NXDomain)).await;
    let ip6 = |text: &str| {
        let address: std::net::Ipv6Addr = text.parse().unwrap();
        let digits: Vec<_> =
            format!("{:032x}", u128::from(address)).chars().rev().map(String::from).collect();
        digits.join(".") + ".ip6.arpa."
    };
    let open = Guest::new(&NetworkSpec::default(), &server);
    let private = [
        "1.0.0.10.in-addr.arpa.",
        "10.in-addr.arpa.",
        "254.169.254.169.IN-ADDR.arpa.",
        "x.in-addr.arpa.",
        "1.2.3.4.5.in-addr.arpa.",
    ];
    for name in
        private.map(str::to_owned).into_iter().chain([ip6("fd00::1"), ip6("::1"), ip6("::ffff:10.0.0.1")])
    {
        assert_eq!(open.code(&name, RecordType::PTR).await, ResponseCode::NXDomain, "{name}");
    }
    assert_eq!(server.asked(), []);
    assert_eq!(open.code("8.8.8.8.in-addr.arpa.", RecordType::PTR).await, ResponseCode::NXDomain);
    assert_eq!(open.code(&ip6(PUBLIC_SIX), RecordType::PTR).await, ResponseCode::NXDomain);
    assert_eq!(server.asked().len(), 2);
    let sealed = Guest::new(&sealed(&["*.arpa"]), &server);
    assert_eq!(sealed.code("8.8.8.8.in-addr.arpa.", RecordType::PTR).await, ResponseCode::NXDomain);
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_server_that_fails_is_told_from_a_name_that_does_not_exist() {
    let server = Server::new(|ask| match ask.name().to_string().as_str() {
        "missing.example." => ask.code(ResponseCode::NXDomain),
        _ => ask.code(ResponseCode::ServFail),
    })
    .await;
    let guest = Guest::new(&sealed(&["missing.example", "broken.example"]), &server);
    assert_eq!(guest.code("missing.example.", RecordType::A).await, ResponseCode::NXDomain);
    assert_eq!(guest.code("broken.example.", RecordType::A).await, ResponseCode::ServFail);
    let events = guest.events();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| !event.blocked && event.error.is_some()));
}

#[tokio::test]
async fn look_ups_are_told_once_where_somebody_wants_to_know() {
    let server = Server::new(|ask| ask.addresses(&[PUBLIC])).await;
    for (spec, told) in [(sealed(&["good.example"]), 1), (observed(), 1), (NetworkSpec::default(), 0)] {
        let guest = Guest::new(&spec, &server);
        for kind in [RecordType::A, RecordType::AAAA, RecordType::A] {
            guest.ask("good.example.", kind).await;
        }
        assert_eq!(guest.events().len(), told);
    }
}
