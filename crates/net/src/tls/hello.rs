//! What a TLS client says first: reads a ClientHello (RFC 8446, 4.1.2) from the bytes of a connection,
//! however they are cut into TLS records and packets.
//!
//! Pure, and fails closed: whatever is not exactly one well-formed ClientHello, with at most one host
//! name in it, is [`Malformed`].

use policy::host::{Host, HostName, InvalidHost};
use thiserror::Error;

/// Longest ClientHello, bytes. The longest real ones, with post-quantum key shares, have about 2 KiB; this
/// bounds what one connection can make us remember before anything is decided about it.
pub const MAX_HELLO: usize = 16 * 1024;

/// Most bytes on the wire that a ClientHello may take: it may be cut into many records, each with a
/// header of its own, but not only into headers.
pub const MAX_WIRE: usize = 2 * MAX_HELLO;

/// Most protocols that a client may offer by ALPN: we remember them one by one.
const MAX_PROTOCOLS: usize = 32;

/// Most bytes of one record's payload, RFC 8446, 5.1.
const MAX_RECORD: usize = 1 << 14;

const RECORD_HEADER: usize = 5;
const CONTENT_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

// Extension numbers: the registry "TLS ExtensionType Values".
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const ECH: u16 = 0xfe0d;
const ESNI: u16 = 0xffce;

/// What matters to us of a ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The server that the client wants to speak to.
    pub sni: Option<HostName>,
    /// Protocols that it offers to speak, in its order.
    pub alpn: Vec<Vec<u8>>,
    /// It has an encrypted inner hello, or pretends to: from outside both look the same. Only the outer
    /// hello counts here; we have no key for an inner one.
    pub ech: bool,
}

/// Why something is not a ClientHello that we answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Not a record of a handshake.
    #[error("not a TLS handshake record")]
    Record,
    /// More than a ClientHello needs.
    #[error("longer than {MAX_HELLO} bytes")]
    TooLong,
    /// Another message, or several.
    #[error("not a single ClientHello")]
    Message,
    /// The named part is not what the standard says.
    #[error("wrong {0}")]
    Field(&'static str),
    /// The same extension twice: which one counts is anybody's guess.
    #[error("extension {0} twice")]
    Twice(u16),
    /// No name, several names, or a name of another kind.
    #[error("server name is not exactly one host name")]
    ServerName,
    /// An address in place of a name, which RFC 6066, 3 forbids.
    #[error("server name is an address")]
    Address,
    /// Not a name.
    #[error("server name is no host name")]
    Name(#[source] InvalidHost),
    /// The forerunner of ECH: its server name is hidden altogether.
    #[error("encrypted server name (ESNI)")]
    Esni,
}

/// Collects a ClientHello from a connection's bytes.
#[derive(Debug, Default)]
pub struct Reader {
    /// The message so far, without the records around it.
    message: Vec<u8>,
    /// How much of the connection is in there.
    consumed: usize,
}

impl Reader {
    /// Reads on. `wire` is all that the connection has brought since its beginning, more each time;
    /// `None` means that this is not enough.
    ///
    /// # Errors
    ///
    /// It never will be: not a ClientHello, or one that nobody should answer.
    pub fn read(&mut self, wire: &[u8]) -> Result<Option<Hello>, Malformed> {
        loop {
            if let Some(hello) = self.message()? {
                return Ok(Some(hello));
            }
            let rest = wire.get(self.consumed..).unwrap_or_default();
            let Some(payload) = record(rest)? else {
                return if wire.len() < MAX_WIRE { Ok(None) } else { Err(Malformed::TooLong) };
            };
            self.message.extend_from_slice(payload);
            self.consumed += RECORD_HEADER + payload.len();
        }
    }

    /// The ClientHello, if its message is complete.
    fn message(&self) -> Result<Option<Hello>, Malformed> {
        let [kind, a, b, c, body @ ..] = self.message.as_slice() else {
            return match self.message.first() {
                Some(&kind) if kind != CLIENT_HELLO => Err(Malformed::Message),
                _ => Ok(None),
            };
        };
        if *kind != CLIENT_HELLO {
            return Err(Malformed::Message);
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if length > MAX_HELLO {
            return Err(Malformed::TooLong);
        }
        match body.len() {
            there if there < length => Ok(None),
            // Nothing may follow before the server has answered, RFC 8446, 5.1.
            there if there > length => Err(Malformed::Message),
            _ => client_hello(body).map(Some),
        }
    }
}

/// Reads a ClientHello from bytes that begin with it. `None` means that they do not have all of it.
///
/// # Errors
///
/// See [`Reader::read`].
pub fn parse(wire: &[u8]) -> Result<Option<Hello>, Malformed> {
    Reader::default().read(wire)
}

/// The payload of the record with which `wire` begins. What can be said to be wrong is said at once, without
/// waiting for the rest.
fn record(wire: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let expected = |at: usize, right: fn(u8) -> bool| wire.get(at).is_none_or(|&byte| right(byte));
    if !expected(0, |kind| kind == CONTENT_HANDSHAKE) || !expected(1, |major| major == 3) {
        return Err(Malformed::Record);
    }
    let [_, _, _, high, low, rest @ ..] = wire else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    // Empty ones are forbidden for handshakes, and would be a way to keep us busy.
    if length == 0 || length > MAX_RECORD {
        return Err(Malformed::Record);
    }
    Ok(rest.get(..length))
}

/// The body of the message.
fn client_hello(body: &[u8]) -> Result<Hello, Malformed> {
    let mut fields = Fields { rest: body };
    if fields.u16("version")? >> 8 != 3 {
        return Err(Malformed::Field("version"));
    }
    fields.take(32, "random")?;
    if fields.vector8("session")?.len() > 32 {
        return Err(Malformed::Field("session"));
    }
    let suites = fields.vector16("cipher suites")?;
    if suites.is_empty() || !suites.len().is_multiple_of(2) {
        return Err(Malformed::Field("cipher suites"));
    }
    if fields.vector8("compression")?.is_empty() {
        return Err(Malformed::Field("compression"));
    }
    let mut hello = Hello { sni: None, alpn: Vec::new(), ech: false };
    // TLS 1.2 allows a hello without any extension.
    if !fields.rest.is_empty() {
        let list = fields.vector16("extensions")?;
        fields.end("extensions")?;
        extensions(list, &mut hello)?;
    }
    Ok(hello)
}

fn extensions(list: &[u8], hello: &mut Hello) -> Result<(), Malformed> {
    let mut fields = Fields { rest: list };
    let mut seen = Vec::new();
    while !fields.rest.is_empty() {
        let number = fields.u16("extension")?;
        let content = Fields { rest: fields.vector16("extension")? };
        match number {
            SERVER_NAME | ALPN | ECH | ESNI if seen.contains(&number) => {
                return Err(Malformed::Twice(number));
            }
            SERVER_NAME => hello.sni = Some(server_name(content)?),
            ALPN => hello.alpn = protocols(content)?,
            ECH => hello.ech = true,
            ESNI => return Err(Malformed::Esni),
            _ => continue,
        }
        seen.push(number);
    }
    Ok(())
}

/// RFC 6066, 3.
fn server_name(mut content: Fields<'_>) -> Result<HostName, Malformed> {
    let mut list = Fields { rest: content.vector16("server name")? };
    content.end("server name")?;
    if list.u8("server name")? != 0 {
        return Err(Malformed::ServerName);
    }
    let name = list.vector16("server name")?;
    if name.is_empty() || !list.rest.is_empty() {
        return Err(Malformed::ServerName);
    }
    let name = str::from_utf8(name).map_err(|_| Malformed::ServerName)?;
    match Host::parse(name).map_err(Malformed::Name)? {
        Host::Name(name) => Ok(name),
        Host::Address(_) => Err(Malformed::Address),
    }
}

/// RFC 7301, 3.1.
fn protocols(mut content: Fields<'_>) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut list = Fields { rest: content.vector16("protocols")? };
    content.end("protocols")?;
    let mut protocols = Vec::new();
    while !list.rest.is_empty() {
        let protocol = list.vector8("protocols")?;
        if protocol.is_empty() || protocols.len() == MAX_PROTOCOLS {
            return Err(Malformed::Field("protocols"));
        }
        protocols.push(protocol.to_vec());
    }
    if protocols.is_empty() { Err(Malformed::Field("protocols")) } else { Ok(protocols) }
}

/// The fields of a structure, in the notation of RFC 8446, 3.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Field(what))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.take(1, what).map(|bytes| bytes[0])
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        self.take(2, what).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = self.u8(what)?;
        self.take(length.into(), what)
    }

    fn vector16(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = self.u16(what)?;
        self.take(length.into(), what)
    }

    fn end(&self, what: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Field(what)) }
    }
}

#[cfg(test)]
mod tests;
