//! Guests that send what no program sends: odd names, any bytes, floods.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn an_answer_that_does_not_fit_is_cut_and_given_whole_over_tcp() {
    let many: Vec<String> = (1..=60).map(|last| format!("93.184.216.{last}")).collect();
    let server = Server::new({
        let many = many.clone();
        move |ask| ask.addresses(&many.iter().map(String::as_str).collect::<Vec<_>>())
    })
    .await;
    let guest = Guest::new(&sealed(&["many.example"]), &server);
    let cut = guest.ask("many.example.", RecordType::A).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let wide = guest.service.answer(&query("many.example.", RecordType::A, Some(4096)), false).await.unwrap();
    let wide = Message::from_vec(&wide).unwrap();
    assert!(!wide.metadata.truncation && given(&wide) == many);
    assert_eq!(wide.edns.unwrap().max_payload(), query::MAX_UDP);
    let (mut client, stream) = tokio::io::duplex(64);
    tokio::join!(guest.service.serve_tcp(stream), async {
        for _ in 0..2 {
            let query = query("many.example.", RecordType::A, None);
            client.write_u16(query.len().try_into().unwrap()).await.unwrap();
            client.write_all(&query).await.unwrap();
            let mut answer = vec![0; client.read_u16().await.unwrap().into()];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(given(&Message::from_vec(&answer).unwrap()), many);
        }
        client.write_u16(u16::MAX).await.unwrap();
        assert!(client.read_u16().await.is_err(), "longer than any query");
    });
}

#[tokio::test(start_paused = true)]
async fn a_tcp_connection_that_says_nothing_is_ended() {
    let (policy, receiver) = watch::channel(policy(&sealed(&["good.example"])));
    let resolver = Resolver::new(Upstream::Servers(vec![]));
    let service = Service::new(receiver, resolver, Names::new(), Reporter::new(|_| {}));
    let (mut client, stream) = tokio::io::duplex(64);
    client.write_all(&[0, 40, 1, 2, 3]).await.unwrap();
    service.serve_tcp(stream).await;
    drop(policy);
}

#[tokio::test]
async fn a_flood_of_queries_is_dropped_and_not_piled_up() {
    let silent = Server::raw(|_| vec![]).await;
    let guest = Guest::new(&NetworkSpec::default(), &silent);
    let queries: Vec<_> =
        (0..MAX_QUERIES).map(|number| query(&format!("n{number}.example."), RecordType::A, None)).collect();
    let waiting =
        futures_util::future::join_all(queries.iter().map(|query| guest.service.answer(query, false)));
    tokio::select! {
        biased;
        _ = waiting => panic!("nobody answers"),
        more = guest.service.answer(&queries[0], false) => assert_eq!(more, None),
    }
}

#[tokio::test]
async fn what_no_host_is_called_is_never_asked_for() {
    let server = Server::new(|ask| ask.addresses(&[PUBLIC])).await;
    for spec in [sealed(&["*"]), NetworkSpec::default()] {
        let guest = Guest::new(&spec, &server);
        let odd: [&[&[u8]]; 8] = [
            &[b"good.example", b"com"],
            &[b"a b", b"example"],
            &[b"good", b"example\0"],
            &[b"-a", b"example"],
            &["ä".as_bytes(), b"example"],
            &[b"127", b"1"],
            &[b"0x7f", b"1"],
            &[b"2130706433"],
        ];
        for labels in odd {
            let mut query = Message::new(7, MessageType::Query, OpCode::Query);
            query.add_query(Query::query(Name::from_labels(labels.iter().copied()).unwrap(), RecordType::A));
            let answer = guest.service.answer(&query.to_vec().unwrap(), false).await.unwrap();
            let answer = Message::from_vec(&answer).unwrap();
            assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{labels:?}");
        }
        assert_eq!(guest.code(".", RecordType::NS).await, ResponseCode::Refused);
        assert_eq!(guest.code("localhost.", RecordType::A).await, ResponseCode::NXDomain);
        assert_eq!(guest.code("a.localhost.", RecordType::A).await, ResponseCode::NXDomain);
    }
    assert_eq!(server.asked(), []);
}

/// What is done about these bytes in a network that is sealed but for one host.
fn decided(query: &[u8]) -> Option<Decision> {
    decide(&policy(&sealed(&["good.example"])), query)
}

fn harmless(decision: Option<&Decision>) -> bool {
    match decision {
        Some(Decision::Resolve(name)) => name.as_str() == "good.example",
        Some(Decision::Forward(_)) => false,
        _ => true,
    }
}

proptest! {
    #[test]
    fn no_bytes_have_a_sealed_network_ask_for_another_name(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(harmless(decided(&bytes).as_ref()));
    }

    #[test]
    fn no_name_and_type_has_a_sealed_network_ask_for_another_name(
        labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..6),
        good: bool,
        kind: u16,
    ) {
        let labels = labels.iter().map(Vec::as_slice).chain([&b"good"[..], b"example"].into_iter().filter(|_| good));
        let mut query = Message::new(7, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(Name::from_labels(labels).unwrap(), kind.into()));
        let decision = decided(&query.to_vec().unwrap());
        prop_assert!(harmless(decision.as_ref()), "{:?}", decision);
    }
}

#[tokio::test]
async fn any_bytes_get_an_answer_or_none_and_nobody_is_asked() {
    let server = Server::new(|ask| ask.addresses(&[PUBLIC])).await;
    let guest = Guest::new(&sealed(&["good.example"]), &server);
    let valid = query("evil.example.", RecordType::A, Some(1232));
    for at in 0..valid.len() {
        for to in [0, 1, 12, 63, 64, 128, 192, 255] {
            let mut bytes = valid.clone();
            bytes[at] = to;
            for over_tcp in [false, true] {
                if let Some(answer) = guest.service.answer(&bytes, over_tcp).await {
                    assert_eq!(answer[..2], bytes[..2]);
                    assert!(Message::from_vec(&answer).is_ok());
                }
            }
        }
    }
    assert_eq!(server.asked(), []);
}
