use std::collections::HashSet;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{ServerName, UnixTime};

use super::*;

fn host(text: &str) -> Host {
    Host::parse(text).unwrap()
}

fn verify(authority: &Authority, chain: &[CertificateDer<'static>], name: &str) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).map(drop)
}

#[test]
fn a_leaf_is_good_for_its_host_only() {
    let authority = Authority::new().unwrap();
    for (name, other) in
        [("a.example", "b.example"), ("192.0.2.7", "192.0.2.8"), ("2001:db8::1", "2001:db8::2")]
    {
        let leaf = authority.leaf(&host(name)).unwrap();
        verify(&authority, &leaf.cert, name).unwrap();
        verify(&authority, &leaf.cert, other).unwrap_err();
    }
}

#[test]
fn a_leaf_of_one_sandbox_is_worth_nothing_in_another() {
    let (one, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let leaf = one.leaf(&host("a.example")).unwrap();
    verify(&other, &leaf.cert, "a.example").unwrap_err();
}

#[test]
fn names_of_any_length_have_leaves() {
    let authority = Authority::new().unwrap();
    let long = format!("{0}.{0}.{0}.example", "a".repeat(60));
    let leaf = authority.leaf(&host(&long)).unwrap();
    verify(&authority, &leaf.cert, &long).unwrap();
}

#[test]
fn leaves_are_reused_and_asking_for_many_hosts_costs_no_memory() {
    let authority = Authority::new().unwrap();
    let first = authority.leaf(&host("kept.example")).unwrap();
    for number in 0..MAX_LEAVES + 10 {
        authority.leaf(&host(&format!("h{number}.example"))).unwrap();
        assert!(Arc::ptr_eq(&first, &authority.leaf(&host("kept.example")).unwrap()));
    }
    assert_eq!(authority.leaves.lock().unwrap().by_host.len(), MAX_LEAVES);
}

#[test]
fn no_serial_number_is_used_twice() {
    let serials: HashSet<_> =
        (0..50).map(|_| params(DAY).unwrap().serial_number.unwrap().to_bytes()).collect();
    assert_eq!(serials.len(), 50);
}

#[test]
fn a_ticket_for_one_host_cannot_be_used_with_another() {
    let authority = Authority::new().unwrap();
    let config = authority.server_config(&host("a.example"), &[b"h2"]).unwrap();
    assert_eq!(config.send_tls13_tickets, 0);
    assert!(!config.ticketer.enabled());
    assert!(!config.session_storage.can_cache());
    assert_eq!(config.alpn_protocols, [b"h2"]);
}

/// What Python's `VERIFY_X509_STRICT` and others look for, as DER.
#[test]
fn strict_clients_find_what_they_ask_for() {
    const KEY_USAGE_CRITICAL: &[u8] = &[0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff];
    const BASIC_CONSTRAINTS_CRITICAL: &[u8] = &[0x55, 0x1d, 0x13, 0x01, 0x01, 0xff];
    const PATH_LENGTH_0: &[u8] = &[0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x00];
    const SUBJECT_KEY: &[u8] = &[0x55, 0x1d, 0x0e];
    const AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 0x23];
    const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
    let has = |der: &[u8], part: &[u8]| der.windows(part.len()).any(|window| window == part);
    let authority = Authority::new().unwrap();
    let leaf = authority.leaf(&host("a.example")).unwrap();
    for der in [&authority.certificate, &leaf.cert[0]] {
        for part in [KEY_USAGE_CRITICAL, BASIC_CONSTRAINTS_CRITICAL, SUBJECT_KEY, AUTHORITY_KEY] {
            assert!(has(der, part));
        }
    }
    assert!(has(&authority.certificate, PATH_LENGTH_0));
    assert!(has(&leaf.cert[0], SERVER_AUTH));
    assert!(!has(&leaf.cert[0], PATH_LENGTH_0));
}
