//! Queries as a hostile guest writes them.

use std::net::Ipv4Addr;

use hickory_proto::rr::{Name, RData, Record};
use proptest::prelude::*;

use super::*;

fn query() -> Message {
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(Name::from_ascii("wWw.example.com.").unwrap(), RecordType::A));
    query
}

fn code(bytes: &[u8]) -> ResponseCode {
    match read(bytes) {
        Err(Refused::With(frame, code)) => {
            assert_eq!(frame.id, u16::from_be_bytes([bytes[0], bytes[1]]));
            code
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plain_query_is_read_as_it_was_written() {
    let asked = read(&query().to_vec().unwrap()).unwrap();
    assert_eq!(asked.question.name().to_string(), "wWw.example.com.");
    assert_eq!((asked.frame.id, asked.frame.edns, asked.frame.udp_size()), (7, None, PLAIN_UDP));
}

#[test]
fn an_answer_from_the_guest_is_not_answered() {
    let mut query = query();
    query.metadata.message_type = MessageType::Response;
    assert_eq!(read(&query.to_vec().unwrap()), Err(Refused::Silently));
    assert_eq!(read(&[0; 11]), Err(Refused::Silently));
    assert_eq!(read(&[0; MAX_QUERY + 1]), Err(Refused::Silently));
}

#[test]
fn anything_but_one_question_is_malformed() {
    let mut none = query();
    none.queries.clear();
    let mut two = query();
    two.add_query(two.queries[0].clone());
    let mut answered = query();
    answered.add_answer(Record::from_rdata(Name::root(), 0, RData::A(Ipv4Addr::LOCALHOST.into())));
    let mut more = query();
    more.additionals = answered.answers.clone();
    for odd in [none, two, answered, more] {
        assert_eq!(code(&odd.to_vec().unwrap()), ResponseCode::FormErr);
    }
    let trailing = [query().to_vec().unwrap(), b"smuggled".to_vec()].concat();
    assert_eq!(code(&trailing), ResponseCode::FormErr);
}

#[test]
fn other_operations_and_classes_are_refused() {
    for op_code in [OpCode::Update, OpCode::Notify, OpCode::Status, OpCode::Unknown(9)] {
        let mut query = query();
        query.metadata.op_code = op_code;
        assert_eq!(code(&query.to_vec().unwrap()), ResponseCode::NotImp);
    }
    for class in [DNSClass::CH, DNSClass::HS, DNSClass::ANY] {
        let mut query = query();
        query.queries[0].set_query_class(class);
        assert_eq!(code(&query.to_vec().unwrap()), ResponseCode::Refused);
    }
}

#[test]
fn sizes_of_edns_are_kept_within_reason() {
    for (claimed, used) in [(0, 512), (512, 512), (900, 900), (4096, MAX_UDP), (65535, MAX_UDP)] {
        let mut query = query();
        query.set_edns(Edns::new());
        let mut bytes = query.to_vec().unwrap();
        // Behind the root's name and the type of the record, which ends the message with eight bytes more.
        let at = bytes.len() - 8;
        bytes[at..at + 2].copy_from_slice(&u16::to_be_bytes(claimed));
        assert_eq!(read(&bytes).unwrap().frame.udp_size(), used);
    }
    let mut query = query();
    query.set_edns(Edns::new().set_version(1).clone());
    assert_eq!(code(&query.to_vec().unwrap()), ResponseCode::BADVERS);
}

#[test]
fn labels_that_are_too_long_and_pointers_in_a_circle_are_malformed() {
    let with = |name: &[u8]| [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], name, &[0, 1, 0, 1]].concat();
    let long: Vec<u8> = (0..5).flat_map(|_| [&[63][..], &[b'a'; 63]].concat()).chain([0]).collect();
    for odd in [
        &[0xc0, 12][..],       // to itself
        &[1, b'a', 0xc0, 12],  // to its own beginning
        &[0xc0, 14, 0xc0, 12], // to each other
        &[0xc0, 0xff],         // out of the message
        &[64, b'a', 0],        // a kind of label that does not exist
        &[0x80, 0],
        &[63, b'a', 0], // out of the message
        &long,
        &[],
    ] {
        assert_eq!(code(&with(odd)), ResponseCode::FormErr, "{odd:?}");
    }
    assert!(read(&with(&[1, b'a', 0])).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = read(&bytes);
    }

    #[test]
    fn no_change_to_a_query_panics(at in 0usize..33, to: u8, cut in 0usize..40) {
        let mut bytes = query().to_vec().unwrap();
        let length = bytes.len();
        bytes[at % length] = to;
        bytes.truncate(length - cut.min(length));
        let _ = read(&bytes);
    }
}
