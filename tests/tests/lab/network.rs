//! The network of a sandbox on KVM: by Firecracker's TAP device, and by QEMU's socket. The lab itself has the
//! server, at addresses that look public.

use harness::Lab;

use crate::{compare, file};

#[test]
fn streams_go_both_ways_whole_and_without_a_stall() {
    let (server, guest) = (file(include_str!("server.py")), file(include_str!("guest.sh")));
    let lab = Lab::of_root().with(server.path(), "/tmp/server").with(guest.path(), "/tmp/guest");
    compare(lab, include_str!("network.sh"), include_str!("network.txt"));
}
