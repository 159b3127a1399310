//! `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` of the sandbox, in place of the image's.

use std::fmt::Write as _;

use proto::boot::BootConfig;

use super::root::Overlay;
use super::{BootError, beneath};

/// Writes them.
pub(super) fn write(root: &Overlay, config: &BootConfig) -> Result<(), BootError> {
    let etc = beneath::linked_directory(root.root(), "etc", 0o755)
        .map_err(|error| BootError::step("find the image's /etc", error))?;
    for (name, contents) in [
        ("hostname", format!("{}\n", config.hostname)),
        ("hosts", hosts(config)),
        ("resolv.conf", resolv_conf(config)),
    ] {
        beneath::replace_file(&etc, name, contents.as_bytes())
            .map_err(|error| BootError::step(format!("write /etc/{name}"), error))?;
    }
    Ok(())
}

fn hosts(config: &BootConfig) -> String {
    let mut text = format!(
        "127.0.0.1 localhost localhost.localdomain {}\n::1 localhost ip6-localhost ip6-loopback\n",
        config.hostname
    );
    for entry in &config.hosts {
        writeln!(text, "{} {}", entry.address, entry.name).expect("a string takes everything");
    }
    text
}

fn resolv_conf(config: &BootConfig) -> String {
    config.dns_servers.iter().fold(String::new(), |mut text, server| {
        writeln!(text, "nameserver {server}").expect("a string takes everything");
        text
    })
}

#[cfg(test)]
mod tests {
    use proto::boot::{HostEntry, Root};

    use super::*;

    #[test]
    fn files_have_the_lines_that_users_rely_on() {
        let config = BootConfig {
            hostname: "box".to_owned(),
            hosts: vec![HostEntry { address: [10, 0, 0, 7].into(), name: "db".to_owned() }],
            dns_servers: vec![[8, 8, 8, 8].into(), [8, 8, 4, 4].into()],
            clock_unix_ns: 0,
            entropy: Vec::new(),
            disks: Vec::new(),
            root: Root { layers: Vec::new(), scratch: String::new(), durable: false },
            mounts: Vec::new(),
            cpu_quota_millis: None,
            network: None,
            certificate: None,
        };
        assert_eq!(
            hosts(&config),
            "127.0.0.1 localhost localhost.localdomain box\n::1 localhost ip6-localhost ip6-loopback\n10.0.0.7 db\n"
        );
        assert_eq!(resolv_conf(&config), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    }
}
