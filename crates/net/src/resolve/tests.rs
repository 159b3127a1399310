//! Against name servers on loopback: true ones, slow ones, lying ones.

use std::collections::HashSet;
use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio::net::UdpSocket;

use super::test_server::{Ask, Server, alias, name, record, text};
use super::*;

const FOUR: &str = "93.184.216.34";
const SIX: &str = "2606:2800:220:1::1";
const LIE: &str = "66.66.66.66";

fn host() -> HostName {
    HostName::parse("www.example.com").unwrap()
}

fn resolver(servers: &[&Server]) -> Resolver {
    Resolver::new(Upstream::Servers(servers.iter().map(|server| server.address).collect()))
}

fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_name_has_the_addresses_of_both_families() {
    let server = Server::new(|ask| ask.addresses(&[FOUR, SIX])).await;
    assert_eq!(resolver(&[&server]).addresses(&host()).await, Ok(parsed(&[FOUR, SIX])));
    let mut kinds: Vec<_> = server.asked().into_iter().map(|(_, kind)| kind).collect();
    kinds.sort();
    assert_eq!(kinds, [RecordType::A, RecordType::AAAA]);
}

#[tokio::test]
async fn a_forged_reply_is_not_believed() {
    let server = Server::raw(|ask| {
        let forge = |change: fn(&mut Message)| {
            let mut lie = ask.addresses(&[LIE]);
            change(&mut lie);
            lie.to_vec().unwrap()
        };
        vec![
            forge(|lie| lie.metadata.id ^= 1),
            forge(|lie| lie.queries[0] = Query::query(name("www.example.org."), lie.queries[0].query_type())),
            forge(|lie| lie.queries[0] = Query::query(lie.queries[0].name().clone(), RecordType::TXT)),
            forge(|lie| lie.queries.clear()),
            forge(|lie| lie.metadata.message_type = hickory_proto::op::MessageType::Query),
            b"no reply at all".to_vec(),
            ask.addresses(&[FOUR]).to_vec().unwrap(),
        ]
    })
    .await;
    assert_eq!(resolver(&[&server]).addresses(&host()).await, Ok(parsed(&[FOUR])));
}

#[tokio::test]
async fn a_reply_from_another_address_is_not_heard() {
    let liar = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            let ask =
                Ask { query: Message::from_vec(&buffer[..length]).unwrap(), over_tcp: false, before: 0 };
            liar.send_to(&ask.addresses(&[LIE]).to_vec().unwrap(), from).await.unwrap();
            server.send_to(&ask.addresses(&[FOUR]).to_vec().unwrap(), from).await.unwrap();
        }
    });
    let resolver = Resolver::new(Upstream::Servers(vec![address]));
    assert_eq!(resolver.addresses(&host()).await, Ok(parsed(&[FOUR])));
    serving.abort();
}

#[tokio::test]
async fn a_flood_of_forged_replies_ends_the_try() {
    let flood = Server::raw(|ask| vec![ask.query.to_vec().unwrap(); 64]).await;
    let server = Server::new(|ask| ask.addresses(&[FOUR])).await;
    assert_eq!(resolver(&[&flood, &server]).addresses(&host()).await, Ok(parsed(&[FOUR])));
}

#[tokio::test]
async fn records_about_other_names_do_not_count() {
    let server = Server::new(|ask| {
        let other = name("bank.example.");
        ask.reply(vec![
            record(&other, 60, LIE),
            alias("bank.example.", "www.example.com."),
            text(&ask.name(), "x"),
        ])
    })
    .await;
    let resolver = resolver(&[&server]);
    assert_eq!(resolver.addresses(&host()).await, Err(ResolveError::NoAddress));
    assert_eq!(resolver.addresses(&HostName::parse("bank.example").unwrap()).await, Ok(parsed(&[LIE])));
}

#[tokio::test]
async fn aliases_are_followed_in_any_order_and_never_in_a_circle() {
    let server = Server::new(|ask| match ask.name().to_string().as_str() {
        "www.example.com." => ask.reply(vec![
            record(&name("c.example."), 60, FOUR),
            alias("B.example.", "c.example."),
            alias("www.example.com.", "b.example."),
        ]),
        _ => ask.reply(vec![alias("round.example.", "a.example."), alias("a.example.", "round.example.")]),
    })
    .await;
    let resolver = resolver(&[&server]);
    assert_eq!(resolver.addresses(&host()).await, Ok(parsed(&[FOUR])));
    let round = resolver.addresses(&HostName::parse("round.example").unwrap()).await;
    assert!(matches!(round, Err(ResolveError::Server(_))), "{round:?}");
}

#[tokio::test]
async fn a_truncated_reply_is_asked_for_over_tcp() {
    let server = Server::new(|ask| {
        if ask.over_tcp {
            return ask.addresses(&[FOUR]);
        }
        let mut cut = ask.addresses(&[LIE]);
        cut.metadata.truncation = true;
        cut
    })
    .await;
    assert_eq!(resolver(&[&server]).addresses(&host()).await, Ok(parsed(&[FOUR])));
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn the_next_server_is_asked_if_one_fails_refuses_or_is_not_there() {
    let gone = { UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let failing = Server::new(|ask| ask.code(ResponseCode::ServFail)).await;
    let refusing = Server::new(|ask| ask.code(ResponseCode::Refused)).await;
    let server = Server::new(|ask| ask.addresses(&[FOUR])).await;
    let servers = vec![gone, failing.address, refusing.address, server.address];
    assert_eq!(Resolver::new(Upstream::Servers(servers)).addresses(&host()).await, Ok(parsed(&[FOUR])));
    let failed = resolver(&[&failing]).addresses(&host()).await;
    assert_eq!(failed, Err(ResolveError::Server("Server Failure")));
    assert_eq!(
        Resolver::new(Upstream::Servers(vec![])).addresses(&host()).await,
        Err(ResolveError::NoServer)
    );
}

#[tokio::test]
async fn a_silent_server_does_not_hold_up_the_next() {
    let silent = Server::raw(|_| vec![]).await;
    let server = Server::new(|ask| ask.addresses(&[FOUR])).await;
    assert_eq!(resolver(&[&silent, &server]).addresses(&host()).await, Ok(parsed(&[FOUR])));
}

#[tokio::test]
async fn a_family_that_is_never_answered_does_not_take_the_other_away() {
    let server = Server::raw(|ask| match ask.kind() {
        RecordType::A => vec![ask.addresses(&[FOUR]).to_vec().unwrap()],
        _ => vec![],
    })
    .await;
    assert_eq!(resolver(&[&server]).addresses(&host()).await, Ok(parsed(&[FOUR])));
    let denying = Server::new(|ask| match ask.kind() {
        RecordType::A => ask.addresses(&[FOUR]),
        _ => ask.code(ResponseCode::NXDomain),
    })
    .await;
    assert_eq!(resolver(&[&denying]).addresses(&host()).await, Ok(parsed(&[FOUR])));
}

#[tokio::test]
async fn an_answer_is_remembered_and_so_is_that_there_is_none() {
    let server = Server::new(|ask| match ask.name().to_string().as_str() {
        "www.example.com." => ask.addresses(&[FOUR]),
        _ => ask.code(ResponseCode::NXDomain),
    })
    .await;
    let resolver = resolver(&[&server]);
    let missing = HostName::parse("missing.example").unwrap();
    for _ in 0..3 {
        assert_eq!(resolver.addresses(&host()).await, Ok(parsed(&[FOUR])));
        assert_eq!(resolver.addresses(&missing).await, Err(ResolveError::NoSuchName));
    }
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn the_same_name_is_asked_for_once_at_a_time() {
    let server = Server::new(|ask| ask.addresses(&[FOUR])).await;
    let resolver = resolver(&[&server]);
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { resolver.addresses(&host()).await })
        })
        .collect();
    for asked in asking {
        assert_eq!(asked.await.unwrap(), Ok(parsed(&[FOUR])));
    }
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_look_up_goes_on_when_whoever_asked_first_has_gone() {
    let server = Server::new(|ask| ask.addresses(&[FOUR])).await;
    let resolver = resolver(&[&server]);
    let host = host();
    tokio::select! {
        biased;
        _ = resolver.addresses(&host) => panic!("nobody can have answered"),
        () = std::future::ready(()) => {}
    }
    assert_eq!(resolver.addresses(&host).await, Ok(parsed(&[FOUR])));
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn look_ups_without_end_take_a_bounded_number_of_sockets() {
    let silent = Server::raw(|_| vec![]).await;
    let resolver = resolver(&[&silent]);
    let ask = |number: usize| {
        let resolver = resolver.clone();
        tokio::spawn(async move {
            resolver.addresses(&HostName::parse(&format!("n{number}.example")).unwrap()).await
        })
    };
    let asking: Vec<_> = (0..MAX_SERVERS * 4).map(ask).collect();
    while silent.asked().len() < MAX_SERVERS * 2 {
        tokio::task::yield_now().await;
    }
    let names: HashSet<_> = silent.asked().into_iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!((names.len(), resolver.0.slots.available_permits()), (MAX_SERVERS, 0));
    asking.iter().for_each(tokio::task::JoinHandle::abort);
}
