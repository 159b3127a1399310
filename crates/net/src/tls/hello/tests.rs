use std::sync::Arc;

use proptest::prelude::*;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::*;
use crate::tls::provider;

/// An extension of a hello under construction.
type Extension = (u16, Vec<u8>);

fn vector16(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
}

fn names(names: &[(u8, &[u8])]) -> Extension {
    let list: Vec<u8> =
        names.iter().flat_map(|(kind, name)| [vec![*kind], vector16(name)].concat()).collect();
    (SERVER_NAME, vector16(&list))
}

fn name(name: &str) -> Extension {
    names(&[(0, name.as_bytes())])
}

fn alpn(protocols: &[&[u8]]) -> Extension {
    let list: Vec<u8> = protocols
        .iter()
        .flat_map(|protocol| [&[u8::try_from(protocol.len()).unwrap()], *protocol].concat())
        .collect();
    (ALPN, vector16(&list))
}

fn message(extensions: &[Extension]) -> Vec<u8> {
    let list: Vec<u8> = extensions
        .iter()
        .flat_map(|(number, content)| [number.to_be_bytes().to_vec(), vector16(content)].concat())
        .collect();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend(vector16(&list));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[CLIENT_HELLO], &length[1..], &body].concat()
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[CONTENT_HANDSHAKE, 3, 1][..], &vector16(part)].concat()).collect()
}

fn hello(extensions: &[Extension]) -> Result<Option<Hello>, Malformed> {
    parse(&records(&message(extensions), MAX_RECORD))
}

#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// What a real client says.
fn real(server: &'static str, protocols: &[&[u8]]) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.dangerous().set_certificate_verifier(Arc::new(Anything));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let mut client = ClientConnection::new(Arc::new(config), server.try_into().unwrap()).unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    wire
}

#[test]
fn a_real_hello_is_read() {
    let wire = real("api.example.com", &[b"h2", b"http/1.1"]);
    let hello = parse(&wire).unwrap().unwrap();
    assert_eq!(hello.sni.unwrap().to_string(), "api.example.com");
    assert_eq!(hello.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert!(!hello.ech);
    assert_eq!(parse(&real("192.0.2.1", &[])).unwrap().unwrap().sni, None);
}

#[test]
fn a_hello_byte_by_byte_and_in_records_of_one_byte_is_the_same_hello() {
    let whole = message(&[name("a.example"), alpn(&[b"h2"])]);
    for size in [1, 2, 3, 100, MAX_RECORD] {
        let wire = records(&whole, size);
        let mut reader = Reader::default();
        for end in 0..wire.len() {
            assert_eq!(reader.read(&wire[..end]), Ok(None), "at {end} of {size}");
        }
        let hello = reader.read(&wire).unwrap().unwrap();
        assert_eq!(hello.sni.unwrap().to_string(), "a.example");
    }
}

#[test]
fn the_name_is_lower_cased_and_nothing_else_is_mended() {
    assert_eq!(hello(&[name("A.Example")]).unwrap().unwrap().sni.unwrap().to_string(), "a.example");
    for odd in ["a.example.", "a..example", ".a", "a b", "a:443", "a%00", "a\0", "user@a", "münchen.de", "*"]
    {
        assert!(matches!(hello(&[name(odd)]), Err(Malformed::Name(_))), "{odd:?}");
    }
    assert_eq!(hello(&[names(&[(0, b"a\xff")])]), Err(Malformed::ServerName));
}

#[test]
fn a_server_name_that_is_an_address_is_refused() {
    for address in ["127.0.0.1", "::1", "2130706433", "0x7f.1", "127.1", "[::1]"] {
        assert!(hello(&[name(address)]).is_err(), "{address}");
    }
}

#[test]
fn several_names_or_none_or_another_kind_are_refused() {
    assert_eq!(hello(&[names(&[(0, b"a.example"), (0, b"b.example")])]), Err(Malformed::ServerName));
    assert_eq!(hello(&[names(&[(0, b"a.example"), (1, b"x")])]), Err(Malformed::ServerName));
    assert_eq!(hello(&[names(&[(1, b"a.example")])]), Err(Malformed::ServerName));
    assert_eq!(hello(&[names(&[(0, b"")])]), Err(Malformed::ServerName));
    assert!(hello(&[names(&[])]).is_err());
    assert_eq!(hello(&[name("a.example"), name("b.example")]), Err(Malformed::Twice(SERVER_NAME)));
}

#[test]
fn an_encrypted_hello_is_told_and_an_encrypted_name_refused() {
    assert!(hello(&[name("a.example"), (ECH, vec![0; 8])]).unwrap().unwrap().ech);
    assert_eq!(hello(&[name("a.example"), (ESNI, vec![0; 8])]), Err(Malformed::Esni));
}

#[test]
fn protocols_are_bounded() {
    assert!(hello(&[alpn(&[&b"h2"[..]; MAX_PROTOCOLS])]).is_ok());
    assert!(hello(&[alpn(&[&b"h2"[..]; MAX_PROTOCOLS + 1])]).is_err());
    assert!(hello(&[alpn(&[b""])]).is_err());
    assert!(hello(&[alpn(&[])]).is_err());
}

#[test]
fn a_hello_without_end_is_refused_at_the_limit() {
    let long = (0x1234, vec![0; MAX_HELLO]);
    assert_eq!(hello(&[long]), Err(Malformed::TooLong));
    let record = records(&[CLIENT_HELLO, 0, 0x3f], 1);
    assert_eq!(parse(&record), Ok(None));
    let fits = message(&[(0x1234, vec![0; MAX_HELLO - 100])]);
    assert!(parse(&records(&fits, MAX_RECORD)).unwrap().is_some());
    assert_eq!(parse(&records(&fits, 1)[..MAX_WIRE]), Err(Malformed::TooLong));
}

#[test]
fn other_records_messages_and_what_follows_are_refused_at_once() {
    for wire in
        [&b"GET / HTTP/1.1"[..], &[0x80, 0x2e, 1, 3, 1], &[22, 2], &[22, 3, 1, 0, 0], &[22, 3, 1, 0xff, 0]]
    {
        assert_eq!(parse(wire), Err(Malformed::Record));
    }
    assert_eq!(parse(&[22, 3, 1, 0, 1, 2]), Err(Malformed::Message));
    let two = [message(&[]), message(&[])].concat();
    assert_eq!(parse(&records(&two, MAX_RECORD)), Err(Malformed::Message));
    // Early data, in a record of its own, is not part of it.
    let early = [records(&message(&[]), MAX_RECORD), vec![23, 3, 3, 0, 1, 0]].concat();
    assert!(parse(&early).unwrap().is_some());
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(wire in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&wire);
    }

    #[test]
    fn a_damaged_hello_never_panics_and_never_has_two_names(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
        let mut wire = records(&message(&[name("a.example"), alpn(&[b"h2"]), (ECH, vec![1])]), 50);
        let length = wire.len();
        wire[at.index(length)] = byte;
        let _ = parse(&wire);
        let _ = parse(&wire[..cut.index(length)]);
    }

    #[test]
    fn cutting_changes_nothing(size in 1usize..300, ends in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let wire = records(&message(&[name("some.host.example"), alpn(&[b"http/1.1"])]), size);
        let mut ends: Vec<_> = ends.iter().map(|end| end.index(wire.len())).collect();
        ends.sort_unstable();
        let mut reader = Reader::default();
        for end in ends {
            prop_assert_eq!(reader.read(&wire[..end]), Ok(None));
        }
        prop_assert_eq!(reader.read(&wire), parse(&wire));
        prop_assert!(parse(&wire).unwrap().is_some());
    }
}
