//! DNS queries from a hostile guest: whatever the bytes, a sealed network asks a name server for allowed
//! names only, and no bytes make the host panic.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use api::network::NetworkSpec;
use libfuzzer_sys::fuzz_target;
use net::dns::{Decision, decide};
use policy::Policy;

static OPEN: LazyLock<Policy> = LazyLock::new(|| policy(&[]));
static SEALED: LazyLock<Policy> = LazyLock::new(|| policy(&["good.example"]));

fn policy(hosts: &[&str]) -> Policy {
    let allowed_hosts = hosts.iter().map(|&host| host.to_owned()).collect();
    let spec = NetworkSpec { allowed_hosts, ..NetworkSpec::default() };
    Policy::compile(&spec, &[], BTreeMap::new()).expect("the policy is a valid one")
}

fuzz_target!(|query: &[u8]| {
    match decide(&SEALED, query) {
        Some(Decision::Resolve(name)) => assert_eq!(name.as_str(), "good.example"),
        Some(Decision::Forward(name)) => panic!("a name server would hear of {name}"),
        _ => {}
    }
    decide(&OPEN, query);
});
