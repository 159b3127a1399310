//! Host names and added hosts, as they are typed.

use std::net::IpAddr;

/// A host name as RFC 1123 allows it.
pub(crate) fn hostname(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    // Linux's own limit is 64 bytes (__NEW_UTS_LEN).
    if text.len() <= 64 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err("letters, digits and -, in parts joined by dots, at most 64 in all".to_owned())
    }
}

/// `NAME:ADDRESS`; an IPv6 address may stand in brackets.
pub(crate) fn added_host(text: &str) -> Result<(IpAddr, String), String> {
    let (name, address) = text.split_once(':').ok_or("not NAME:ADDRESS")?;
    let address = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    let address = address.parse().map_err(|_| format!("{address:?} is not an IP address"))?;
    Ok((address, hostname(name)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_hosts_are_a_name_and_an_address() {
        let host = |address: &str, name: &str| Ok((address.parse().unwrap(), name.to_owned()));
        assert_eq!(added_host("db:10.0.0.1"), host("10.0.0.1", "db"));
        assert_eq!(added_host("db.local:::1"), host("::1", "db.local"));
        assert_eq!(added_host("db:[fe80::1]"), host("fe80::1", "db"));
        for wrong in ["db", "db:", "db:x", ":1.2.3.4", "a b:1.2.3.4", "a\nb:1.2.3.4"] {
            assert!(added_host(wrong).is_err(), "{wrong}");
        }
    }
}
