//! How guests and users write hosts: what parses means the same when it is written out, and no spelling
//! of an address is a name.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use policy::{Authority, Entry, Host, HostName};

fuzz_target!(|text: &str| {
    if let Ok(host) = Host::parse(text) {
        assert_eq!(Host::parse(&host.to_string()).as_ref(), Ok(&host), "{text:?}");
        if let Some(name) = host.name() {
            assert!(name.as_str().parse::<IpAddr>().is_err(), "{text:?}");
            assert!(text.eq_ignore_ascii_case(name.as_str()), "{text:?} became {name}");
        }
    }
    if let Ok(authority) = Authority::parse(text) {
        assert_eq!(Authority::parse(&authority.to_string()).as_ref(), Ok(&authority), "{text:?}");
        assert_ne!(authority.port, Some(0), "{text:?}");
    }
    if let Ok(name) = HostName::from_user(text) {
        assert_eq!(HostName::parse(name.as_str()).as_ref(), Ok(&name), "{text:?}");
    }
    if let Ok(entry) = text.parse::<Entry>() {
        let written = entry.to_string();
        assert_eq!(written.parse::<Entry>().as_ref(), Ok(&entry), "{text:?} became {written:?}");
        // A pattern without stars is a name, and allows itself and nothing else.
        if let Entry::Glob { pattern, port } = &entry
            && let Ok(name) = HostName::parse(pattern.as_str())
        {
            assert!(entry.allows_name(&name, port.unwrap_or(443)), "{text:?}");
            let under = HostName::parse(&format!("x.{name}"));
            assert!(!under.is_ok_and(|under| entry.knows(&under)), "{text:?}");
        }
    }
});
