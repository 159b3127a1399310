//! What is to be done about a guest's query. Pure: no I/O, so that it can be tested with any bytes.
//!
//! Fails closed: what is not known to be harmless is answered here, and no name server hears of it.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use policy::address::{Class, class};
use policy::{Denial, HostName, Mode, Policy, Reason};

use super::query::Asked;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Answered with this code; nobody else is asked.
    Answer(ResponseCode),
    /// Refused, with this code, which says that there is no such name or record; nobody else is asked.
    Deny(ResponseCode, Denial),
    /// The user gave the name these addresses; nobody is asked.
    Given(HostName, Vec<IpAddr>),
    /// The name's addresses are to be resolved.
    Resolve(HostName),
    /// A name server is to be asked the same question.
    Forward(HostName),
}

/// What is done about a well-formed query.
pub(super) fn decide(policy: &Policy, asked: &Asked) -> Decision {
    let (name, kind) = (asked.question.name(), asked.record_type());
    let answer = Decision::Answer;
    match kind {
        // RFC 8482: all of a name's records at once are of use to attackers only.
        RecordType::ANY => return answer(ResponseCode::NotImp),
        RecordType::AXFR | RecordType::IXFR => return answer(ResponseCode::Refused),
        _ => {}
    }
    if name.is_root() {
        return answer(ResponseCode::Refused);
    }
    let sealed = policy.mode() == Mode::Sealed;
    let Some(host) = host_name(name) else {
        return if sealed { tunnel(name, ResponseCode::NXDomain) } else { answer(ResponseCode::NXDomain) };
    };
    let given = policy.added_host(&host);
    if !given.is_empty() {
        return match kind {
            RecordType::A | RecordType::AAAA => Decision::Given(host, given),
            _ => answer(ResponseCode::NoError),
        };
    }
    // The guest's own: it is in its hosts file, and nobody else can know it. RFC 6761.
    if name.is_localhost() {
        return answer(ResponseCode::NXDomain);
    }
    if let Some(reverse) = reverse(name)
        && (sealed || reverse == Reverse::Private)
    {
        return answer(ResponseCode::NXDomain);
    }
    if let Err(denial) = policy.resolve(&host) {
        return Decision::Deny(ResponseCode::NXDomain, denial);
    }
    match kind {
        RecordType::A | RecordType::AAAA => Decision::Resolve(host),
        // They tell of HTTP/3 and of keys for an encrypted ClientHello, neither of which passes.
        RecordType::HTTPS | RecordType::SVCB => answer(ResponseCode::NoError),
        // Other records carry whatever their zone's owner likes, both ways: a tunnel.
        _ if sealed => tunnel(name, ResponseCode::NoError),
        _ => Decision::Forward(host),
    }
}

/// What no program needs that only wants to reach the hosts that are allowed.
fn tunnel(name: &Name, code: ResponseCode) -> Decision {
    let text = name.to_ascii();
    Decision::Deny(code, Denial::new(Reason::DnsName, text.trim_end_matches('.').to_ascii_lowercase(), 0))
}

/// The name as a host's; `None` for what no host is called.
fn host_name(name: &Name) -> Option<HostName> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        let label = std::str::from_utf8(label).ok()?;
        // A dot within a label would read like two labels.
        if label.contains('.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(&label.to_ascii_lowercase());
    }
    HostName::parse(&text).ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reverse {
    Public,
    /// Of an address that is not public, or of none.
    Private,
}

/// What a name under `in-addr.arpa` or `ip6.arpa` is about; `None` for all others.
fn reverse(name: &Name) -> Option<Reverse> {
    let mut labels = name.iter().rev().map(<[u8]>::to_ascii_lowercase);
    let zone = (labels.next()?, labels.next()?);
    if zone.0 != b"arpa" || (zone.1 != b"in-addr" && zone.1 != b"ip6") {
        return None;
    }
    Some(match name.parse_arpa_name().map(|net| class(net.addr())) {
        Ok(Class::Public) => Reverse::Public,
        Ok(Class::Private(_)) | Err(_) => Reverse::Private,
    })
}
