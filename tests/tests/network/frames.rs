//! Row 6 of the promises: a guest that writes its own frames.

use harness::cache::CLIENTS;
use harness::process::peak_memory_kib;
use harness::{Sandbox, Site};

use crate::attacks::ATTACKER;

#[test]
fn row_6_raw_frames_spoofed_fragmented_malformed_and_in_floods() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let flags = ["--privileged", "--allow-host", "www.good.test"];
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &flags);
    let program = format!("{ATTACKER}\nknown('www.good.test')\n{}", include_str!("../../clients/frames.py"));
    let output = sandbox.python(&program).success().stdout_text();
    let count = |name: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" => "));
        line.unwrap_or_else(|| panic!("no {name} in {output}")).to_owned()
    };
    for answered in ["control ping of the gateway", "control SYN", "control who has the gateway"] {
        assert_eq!(count(answered), "1", "{answered}");
    }
    for silent in
        ["ping elsewhere, time stamps, redirects", "spoofed sources", "fragments", "who has other addresses"]
    {
        assert_eq!(count(silent), "0", "{silent}");
    }
    assert!(count("control afterwards").starts_with("200 hello"), "{output}");
    for marker in ["spoofed", "six", "raw datagram"] {
        assert!(!site.service("udp").iter().any(|line| line.to_string().contains(marker)), "{marker}");
    }
    for part in ["spoofed.evil", "fragmented.evil", "raw.evil"] {
        assert!(site.queries(part).is_empty(), "{part}");
    }
    site.assert_untouched();
    let kib = peak_memory_kib(matchlock.owner(sandbox.id()));
    assert!(kib < 256 * 1024, "{kib} KiB");
}
