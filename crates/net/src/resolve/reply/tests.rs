//! Replies of any bytes.

use std::net::Ipv4Addr;

use hickory_proto::rr::{Name, Record};
use proptest::prelude::*;

use super::*;

fn asked() -> Query {
    question(&Name::from_ascii("www.example.com.").unwrap(), false)
}

#[test]
fn a_reply_that_promises_more_records_than_any_host_has_is_not_parsed() {
    let mut reply = Message::response(7, OpCode::Query);
    reply.add_query(asked());
    let mut bytes = reply.to_vec().unwrap();
    assert!(read(&bytes, 7, &asked()).is_some());
    bytes[6..8].copy_from_slice(&[0xff, 0xff]);
    assert!(read(&bytes, 7, &asked()).is_none());
}

#[test]
fn a_name_in_another_case_is_the_same() {
    let mut reply = Message::response(7, OpCode::Query);
    reply.add_query(question(&Name::from_ascii("wWw.eXample.COM.").unwrap(), false));
    assert!(read(&reply.to_vec().unwrap(), 7, &asked()).is_some());
}

proptest! {
    #[test]
    fn no_bytes_make_a_reply_that_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..300), whole: bool) {
        if whole && bytes.len() > HEADER {
            // Behind a header that fits, so that the parser gets to see the rest.
            bytes[..6].copy_from_slice(&[0, 7, 0x80, 0, 0, 1]);
            bytes[6..HEADER].copy_from_slice(&[0, 2, 0, 0, 0, 0]);
        }
        if let Some(reply) = read(&bytes, 7, &asked()) {
            addresses(&reply, &asked());
        }
    }

    #[test]
    fn no_change_to_a_reply_gives_an_address_that_is_not_in_it(at in 0usize..61, to: u8) {
        let mut reply = Message::response(7, OpCode::Query);
        reply.add_query(asked());
        reply.add_answer(Record::from_rdata(asked().name().clone(), 60, RData::A(Ipv4Addr::new(1, 2, 3, 4).into())));
        let mut bytes = reply.to_vec().unwrap();
        let length = bytes.len();
        bytes[at % length] = to;
        if let Some(reply) = read(&bytes, 7, &asked())
            && let Said::Addresses { addresses, .. } = addresses(&reply, &asked())
        {
            for address in addresses {
                let IpAddr::V4(address) = address else { panic!("asked for IPv4") };
                prop_assert!(bytes.ends_with(&address.octets()));
            }
        }
    }
}
