//! A guest's query, read strictly. Pure: no I/O.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// The longest query: a name, and what EDNS puts around it. Longer ones are an attempt to carry something.
pub(super) const MAX_QUERY: usize = 4096;

/// Bytes before the question.
const HEADER: usize = 12;

/// The largest answer over UDP without EDNS, RFC 1035 section 4.2.1.
const PLAIN_UDP: u16 = 512;

/// The largest answer over UDP that we promise and send: what passes every link unfragmented.
pub(super) const MAX_UDP: u16 = 1232;

/// What the guest asked, and how the answer must look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) question: Query,
    pub(super) frame: Frame,
}

impl Asked {
    /// The type of records asked for.
    pub(super) fn record_type(&self) -> RecordType {
        self.question.query_type()
    }
}

/// What of a query comes back in every answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) id: u16,
    pub(super) op_code: OpCode,
    pub(super) recursion_desired: bool,
    pub(super) checking_disabled: bool,
    /// The guest speaks EDNS, and takes answers of this size over UDP.
    pub(super) edns: Option<u16>,
}

impl Frame {
    /// The largest answer over UDP.
    pub(super) fn udp_size(&self) -> u16 {
        self.edns.unwrap_or(PLAIN_UDP).clamp(PLAIN_UDP, MAX_UDP)
    }

    fn new(metadata: &Metadata) -> Self {
        Self {
            id: metadata.id,
            op_code: metadata.op_code,
            recursion_desired: metadata.recursion_desired,
            checking_disabled: metadata.checking_disabled,
            edns: None,
        }
    }
}

/// Bytes that ask nothing that we answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// No query at all: there is nobody to be answered.
    Silently,
    /// With this code.
    With(Frame, ResponseCode),
}

/// Reads a query: exactly one question for records of the Internet class, with EDNS version 0 or none, and
/// nothing else.
pub(super) fn read(bytes: &[u8]) -> Result<Asked, Refused> {
    let Some(([id_high, id_low, flags, codes], counts)) =
        bytes.get(..HEADER).and_then(<[u8]>::split_first_chunk)
    else {
        return Err(Refused::Silently);
    };
    // The top bit says that it is an answer; nobody asked the guest anything.
    if flags & 0x80 != 0 || bytes.len() > MAX_QUERY {
        return Err(Refused::Silently);
    }
    let mut metadata = Metadata::new(
        u16::from_be_bytes([*id_high, *id_low]),
        MessageType::Query,
        OpCode::from_u8(flags >> 3 & 0xf),
    );
    metadata.recursion_desired = flags & 1 != 0;
    metadata.checking_disabled = codes & 0x10 != 0;
    let frame = Frame::new(&metadata);
    let refused = |code| Err(Refused::With(frame, code));
    if metadata.op_code != OpCode::Query {
        return refused(ResponseCode::NotImp);
    }
    // One question, no answers, no authorities, at most EDNS besides: looked at before anything is parsed.
    if !matches!(counts, [0, 1, 0, 0, 0, 0, 0, 0 | 1]) {
        return refused(ResponseCode::FormErr);
    }
    let mut decoder = BinDecoder::new(bytes);
    let Ok(message) = Message::read(&mut decoder) else { return refused(ResponseCode::FormErr) };
    let whole = decoder.is_empty() && message.additionals.is_empty() && message.signature.is_none();
    let (Some(question), true) = (message.queries.first(), whole) else {
        return refused(ResponseCode::FormErr);
    };
    let frame = Frame { edns: message.edns.as_ref().map(Edns::max_payload), ..frame };
    let refused = |code| Err(Refused::With(frame, code));
    if message.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return refused(ResponseCode::BADVERS);
    }
    if question.query_class() != DNSClass::IN {
        return refused(ResponseCode::Refused);
    }
    Ok(Asked { question: question.clone(), frame })
}

#[cfg(test)]
mod tests;
