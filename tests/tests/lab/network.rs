//! The network of a sandbox on KVM: by Firecracker's TAP device, and by QEMU's socket. The lab itself has the
//! server, at addresses that look public.

use harness::Lab;
use tempfile::NamedTempFile;

use crate::compare;

#[test]
fn streams_go_both_ways_whole_and_without_a_stall() {
    let [server, guest] = [include_str!("server.py"), include_str!("guest.sh")].map(|text| {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        file
    });
    let lab = Lab::of_root().with(server.path(), "/tmp/server").with(guest.path(), "/tmp/guest");
    compare(lab, include_str!("network.sh"), include_str!("network.txt"));
}
