//! The host's files, as text.

use super::*;

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

#[test]
fn a_host_of_the_hosts_file_has_all_its_addresses() {
    let text = "127.0.0.1 localhost\n# 9.9.9.9 git.corp\n10.0.0.5\tGit.corp git # ours\n::1 git.corp\nnonsense git.corp\n";
    let found = listed(text, &name("git.corp"));
    assert_eq!(found, ["10.0.0.5".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    assert_eq!(listed(text, &name("other.corp")), Vec::<IpAddr>::new());
    assert_eq!(listed(text, &name("ours")), Vec::<IpAddr>::new(), "a comment is no name");
}

#[test]
fn name_servers_are_those_of_the_host_or_its_own() {
    let text =
        "# nameserver 9.9.9.9\nsearch corp\nnameserver 10.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\n";
    assert_eq!(configured(text), ["10.0.0.1:53".parse::<SocketAddr>().unwrap(), "[::1]:53".parse().unwrap()]);
    assert_eq!(configured(""), ["127.0.0.1:53".parse::<SocketAddr>().unwrap()]);
    assert_eq!(configured(&"nameserver 1.1.1.1\n".repeat(9)).len(), MAX_SERVERS);
}

#[test]
fn a_name_that_does_not_exist_is_told_from_a_resolver_that_failed() {
    let error = |text: &str| io::Error::other(format!("failed to lookup address information: {text}"));
    assert_eq!(negative(&error("Name or service not known")), Err(ResolveError::NoSuchName));
    assert_eq!(negative(&error("No address associated with hostname")), Ok(Vec::new()));
    let failed = negative(&error("Temporary failure in name resolution"));
    assert!(matches!(failed, Err(ResolveError::System(_))));
}
