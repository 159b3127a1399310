use std::collections::BTreeMap;
use std::net::SocketAddr;

use api::network::NetworkSpec;
use policy::Reason;
use rustls::RootCertStore;
use tokio::net::TcpListener;

use super::*;
use crate::resolve;

fn upstream(allowed: &[String], hosts: &[(&str, &str)]) -> (Upstream, Policy) {
    let hosts: Vec<(IpAddr, String)> =
        hosts.iter().map(|(address, name)| (address.parse().unwrap(), (*name).to_owned())).collect();
    let spec = NetworkSpec { allowed_hosts: allowed.to_vec(), ..NetworkSpec::default() };
    let policy = Policy::compile(&spec, &hosts, BTreeMap::new()).unwrap();
    let resolver = Resolver::new(resolve::Upstream::Servers(Vec::new()));
    let roots = Roots::These(Arc::new(RootCertStore::empty()));
    let (_, receiver) = watch::channel(policy.clone());
    (Upstream::new(resolver, receiver, roots), policy)
}

fn permit(policy: &Policy, host: &str, port: u16) -> Permit {
    policy.host(&Host::parse(host).unwrap(), port).unwrap()
}

async fn listener(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn an_address_that_refuses_is_followed_by_the_next() {
    let (listening, address) = listener("127.0.0.2:0").await;
    let hosts = [("127.0.0.1", "a.example"), ("::1", "a.example"), ("127.0.0.2", "a.example")];
    let (upstream, policy) = upstream(&["a.example".to_owned()], &hosts);
    let stream = upstream.dial(&permit(&policy, "a.example", address.port())).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), address);
    assert!(stream.nodelay().unwrap());
    drop(listening);
}

#[tokio::test]
async fn a_host_whose_addresses_all_refuse_is_refused() {
    let (listening, address) = listener("127.0.0.1:0").await;
    drop(listening);
    let (upstream, policy) = upstream(&["a.example".to_owned()], &[("127.0.0.1", "a.example")]);
    let error = upstream.dial(&permit(&policy, "a.example", address.port())).await.unwrap_err();
    assert!(matches!(error, DialError::Refused), "{error}");
    assert_eq!(error.status(), 502);
}

#[tokio::test]
async fn a_name_without_an_address_is_told_apart() {
    let (upstream, policy) = upstream(&["a.example".to_owned()], &[]);
    let error = upstream.dial(&permit(&policy, "a.example", 443)).await.unwrap_err();
    assert!(matches!(error, DialError::Resolve(_)), "{error}");
}

#[tokio::test]
async fn a_permit_of_another_policy_does_not_admit_a_private_address() {
    let (listening, address) = listener("127.0.0.1:0").await;
    let entry = address.to_string();
    let (_, generous) = upstream(&[entry], &[]);
    let (upstream, _) = upstream(&["a.example".to_owned()], &[]);
    let error = upstream.dial(&permit(&generous, "127.0.0.1", address.port())).await.unwrap_err();
    let DialError::Denied(denial) = error else { panic!("{error}") };
    assert!(matches!(denial.reason, Reason::PrivateAddress { .. }));
    drop(listening);
}
