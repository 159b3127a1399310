//! The Firecracker driver's own tests, which need KVM, in a lab.

use std::process::Command;
use std::time::Duration;

use harness::{Running, matchlock, tool};

#[test]
fn the_firecracker_driver_passes_its_tests_on_kvm() {
    let mut tests = Command::new(tool::source_tree().join("scripts/lab-tests"));
    tests
        .args(["--package", "matchlock-vmm", "machine", "--ignored", "firecracker::"])
        .env("MATCHLOCK_BIN", matchlock::binary());
    let output = Running::start(&mut tests, Duration::from_secs(900)).wait();
    let said = output.stdout_text();
    assert!(
        output.code == Some(0) && said.contains("test result: ok. 6 passed"),
        "{said}\n{}",
        output.stderr_text()
    );
}
