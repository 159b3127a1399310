//! Writing answers. Pure: no I/O.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};

use super::query::{Asked, Frame, MAX_UDP};

/// How long the guest may believe an answer, so that a change of policy or of the name is seen.
pub(super) const MAX_TTL: Duration = Duration::from_secs(300);

/// The answer to something that was no question.
pub(super) fn refused(frame: &Frame, code: ResponseCode, over_tcp: bool) -> Option<Vec<u8>> {
    write(&message(frame, None, code), frame, over_tcp)
}

/// An answer without records.
pub(super) fn empty(asked: &Asked, code: ResponseCode, over_tcp: bool) -> Option<Vec<u8>> {
    write(&message(&asked.frame, Some(&asked.question), code), &asked.frame, over_tcp)
}

/// An answer with addresses. Whatever aliases led to them, they are given as the name's own.
pub(super) fn addresses(
    asked: &Asked,
    addresses: &[IpAddr],
    ttl: Duration,
    over_tcp: bool,
) -> Option<Vec<u8>> {
    let mut message = message(&asked.frame, Some(&asked.question), ResponseCode::NoError);
    let ttl = u32::try_from(ttl.min(MAX_TTL).as_secs()).unwrap_or(0).max(1);
    for address in addresses {
        let data = match *address {
            IpAddr::V4(address) => RData::A(address.into()),
            IpAddr::V6(address) => RData::AAAA(address.into()),
        };
        message.add_answer(Record::from_rdata(asked.question.name().clone(), ttl, data));
    }
    write(&message, &asked.frame, over_tcp)
}

/// What a name server said, without what it must not say: addresses that nobody checked, and what leads
/// around us. Its additional section is not needed, and left out.
pub(super) fn forwarded(asked: &Asked, reply: Message, over_tcp: bool) -> Option<Vec<u8>> {
    let mut message = message(&asked.frame, Some(&asked.question), reply.metadata.response_code);
    message.answers = passed(reply.answers);
    message.authorities = passed(reply.authorities);
    write(&message, &asked.frame, over_tcp)
}

fn passed(records: Vec<Record>) -> Vec<Record> {
    let passes = |record: &Record| {
        let about_hosts = matches!(
            record.record_type(),
            RecordType::A | RecordType::AAAA | RecordType::HTTPS | RecordType::SVCB | RecordType::OPT
        );
        record.dns_class == DNSClass::IN && !about_hosts
    };
    let cap = u32::try_from(MAX_TTL.as_secs()).unwrap_or(u32::MAX);
    let mut records: Vec<_> = records.into_iter().filter(passes).collect();
    for record in &mut records {
        record.ttl = record.ttl.min(cap);
    }
    records
}

fn message(frame: &Frame, question: Option<&Query>, code: ResponseCode) -> Message {
    let mut message = Message::error_msg(frame.id, frame.op_code, code);
    message.metadata.recursion_desired = frame.recursion_desired;
    message.metadata.checking_disabled = frame.checking_disabled;
    message.metadata.recursion_available = true;
    // As it was asked, upper and lower case included: clients compare it.
    message.add_queries(question.cloned());
    if frame.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP);
        message.set_edns(edns);
    }
    message
}

/// The bytes, cut down to the question if the guest cannot take more over UDP: it asks again over TCP.
fn write(message: &Message, frame: &Frame, over_tcp: bool) -> Option<Vec<u8>> {
    let limit = if over_tcp { u16::MAX } else { frame.udp_size() };
    let fits = |bytes: &Vec<u8>| bytes.len() <= usize::from(limit);
    message.to_vec().ok().filter(fits).or_else(|| message.truncate().to_vec().ok().filter(fits))
}
