//! The resolver that the host's own programs use: its hosts file, `getaddrinfo(3)`, and for what that
//! cannot ask the name servers of `resolv.conf(5)`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use policy::HostName;

use super::ResolveError;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;

/// Name servers used of `resolv.conf`, as the C library does.
const MAX_SERVERS: usize = 3;

/// Asks the system; blocks for as long as it likes.
pub(super) fn look_up(name: &HostName) -> Result<Vec<IpAddr>, ResolveError> {
    // The hosts file has no names with a final dot, so the C library would not find them below.
    let listed = std::fs::read_to_string(HOSTS).map(|text| listed(&text, name)).unwrap_or_default();
    if !listed.is_empty() {
        return Ok(listed);
    }
    // The dot makes it absolute: without it, the host's search domains would make other names of it.
    match (format!("{name}."), 0).to_socket_addrs() {
        Ok(found) => Ok(found.map(|address| address.ip()).collect()),
        Err(error) => negative(&error),
    }
}

/// What `getaddrinfo` said when it had no address to give.
fn negative(error: &io::Error) -> Result<Vec<IpAddr>, ResolveError> {
    // Its result code does not come through the standard library, only its text. One that is not in this
    // list is taken for a failure, and the guest asks again.
    let text = error.to_string();
    let says = |texts: &[&str]| texts.iter().any(|known| text.ends_with(known));
    if says(&[
        "Name or service not known",
        "Name does not resolve",
        "nodename nor servname provided, or not known",
    ]) {
        Err(ResolveError::NoSuchName)
    } else if says(&["No address associated with hostname", "Name has no usable address"]) {
        Ok(Vec::new())
    } else {
        Err(ResolveError::System(text))
    }
}

/// The name's addresses in a hosts file.
fn listed(text: &str, name: &HostName) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for line in text.lines() {
        let mut fields = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        if let Some(Ok(address)) = fields.next().map(str::parse)
            && fields.any(|listed| {
                HostName::parse(&listed.to_ascii_lowercase()).is_ok_and(|listed| listed == *name)
            })
        {
            addresses.push(address);
        }
    }
    addresses
}

/// The host's name servers.
pub(super) async fn servers() -> Vec<SocketAddr> {
    let text = tokio::fs::read_to_string(RESOLV_CONF).await.unwrap_or_default();
    configured(&text)
}

fn configured(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let address = (fields.next()? == "nameserver").then(|| fields.next())??;
        // One that is only reachable through a certain interface is not used: scopes are not ours to resolve.
        address.parse::<IpAddr>().ok()
    });
    let mut servers: Vec<_> =
        servers.take(MAX_SERVERS).map(|server| SocketAddr::new(server, DNS_PORT)).collect();
    if servers.is_empty() {
        // resolv.conf(5): the default is the name server on the local machine.
        servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT));
    }
    servers
}

#[cfg(test)]
mod tests;
