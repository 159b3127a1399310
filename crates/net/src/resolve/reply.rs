//! What a name server's reply says, checked against what it was asked. Pure: no I/O.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

/// Records in one reply. A name server could otherwise make us work through thousands.
const MAX_RECORDS: usize = 512;

/// Aliases followed in one answer; stops a chain that leads round in a circle.
const MAX_ALIASES: usize = 16;

/// Addresses taken of one answer. No host needs more, and they are all checked, dialled and remembered.
const MAX_ADDRESSES: usize = 64;

/// Bytes of a message before its question.
const HEADER: usize = 12;

/// The reply, if it is one to this question of ours; `None` for anything that somebody else might have sent.
pub(super) fn read(bytes: &[u8], id: u16, question: &Query) -> Option<Message> {
    // Counted before anything is parsed: the parser makes room for as many as the header promises.
    let counts = bytes.get(4..HEADER)?.as_chunks::<2>().0;
    let [questions, records @ ..] = counts else { return None };
    let records: usize = records.iter().map(|count| usize::from(u16::from_be_bytes(*count))).sum();
    if u16::from_be_bytes(*questions) != 1 || records > MAX_RECORDS {
        return None;
    }
    let message = Message::from_vec(bytes).ok()?;
    let metadata = &message.metadata;
    let ours = metadata.id == id
        && metadata.message_type == MessageType::Response
        && metadata.op_code == OpCode::Query;
    // Names are compared without regard to case, which some servers change.
    (ours && message.queries.first() == Some(question)).then_some(message)
}

/// What a reply says of a name's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// These, for so long; none if the name has other records only.
    Addresses { addresses: Vec<IpAddr>, ttl: Duration },
    /// There is no such name.
    NoSuchName,
    /// The server cannot or will not tell.
    Failed(ResponseCode),
}

/// The addresses in a reply to a question for `A` or `AAAA`. Records whose owner is not the name, nor what
/// the reply says it is an alias of, do not count: they may be about anybody.
pub(super) fn addresses(reply: &Message, question: &Query) -> Said {
    match reply.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Said::NoSuchName,
        code => return Said::Failed(code),
    }
    let mut owner: &Name = question.name();
    let mut ttl = u32::MAX;
    for _ in 0..=MAX_ALIASES {
        let about = || {
            reply.answers.iter().filter(|record| record.dns_class == DNSClass::IN && record.name == *owner)
        };
        let mut addresses = Vec::new();
        for record in about().filter(|record| record.record_type() == question.query_type()) {
            if let Some(address) = record.data.ip_addr()
                && addresses.len() < MAX_ADDRESSES
                && !addresses.contains(&address)
            {
                addresses.push(address);
                ttl = ttl.min(record.ttl);
            }
        }
        let alias = about().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((&target.0, record.ttl)),
            _ => None,
        });
        match alias {
            Some((target, lives)) if addresses.is_empty() => {
                owner = target;
                ttl = ttl.min(lives);
            }
            _ => {
                let ttl = if addresses.is_empty() { 0 } else { ttl };
                return Said::Addresses { addresses, ttl: Duration::from_secs(ttl.into()) };
            }
        }
    }
    Said::Failed(ResponseCode::ServFail)
}

/// The question for a name's addresses of one family.
pub(super) fn question(name: &Name, six: bool) -> Query {
    Query::query(name.clone(), if six { RecordType::AAAA } else { RecordType::A })
}

#[cfg(test)]
mod tests;
