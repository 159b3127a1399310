//! What goes wrong around a VMM: each has an error that says what to do, or another way, and leaves nothing.

use harness::Lab;

use crate::compare;

#[test]
fn a_vmm_that_is_missing_old_broken_silent_or_killed_is_explained_and_leaves_nothing() {
    compare(Lab::of_root(), include_str!("faults.sh"), include_str!("faults.txt"));
}

#[test]
fn without_kvm_or_namespaces_or_as_root_there_is_another_way_or_a_fix() {
    compare(Lab::of_root(), include_str!("hosts.sh"), include_str!("hosts.txt"));
}

#[test]
fn twenty_sandboxes_run_side_by_side_and_leave_nothing() {
    compare(Lab::of_root().with_memory(6144), include_str!("twenty.sh"), include_str!("twenty.txt"));
}
