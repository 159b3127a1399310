//! Sandboxes on KVM, as an ordinary user, in a lab: `scripts/lab`, a VM whose emulated CPU has
//! virtualization. What is slow there is the lab, so this tells only whether it works.

use harness::Lab;
use harness::cache::{self, BUSYBOX};

#[test]
fn a_lab_runs_a_command_as_an_ordinary_user_and_ends_with_its_exit_code() {
    let output = Lab::new().run(&["sh", "-c", "id -nG; echo \"it's err\" >&2; test -w /etc || exit 7"]);
    assert_eq!((output.code, output.stdout_text().as_str()), (Some(7), "lab kvm\n"));
    assert_eq!(output.stderr_text().lines().last(), Some("it's err"));
}

/// Every kind of life that a sandbox can have, and the network of one that is sealed.
const LIVES: &str = r"
set -e
matchlock diagnose | grep -E 'acceleration|test VM'
matchlock image import busybox </tmp/busybox.tar >/dev/null 2>&1
matchlock run --image busybox -- sh -c 'id -u; exit 3' || echo run $?
matchlock run --image busybox --allow-host good.test -- nslookup evil.test >/dev/null 2>&1 || echo refused
matchlock run -d --name kept --image busybox -- sleep 1000 >/dev/null
echo through | matchlock exec -i kept -- cat
matchlock kill kept >/dev/null
matchlock rm kept >/dev/null
matchlock gc
";

#[test]
fn sandboxes_run_on_kvm_as_an_ordinary_user() {
    let (tar, script) = (cache::tar(BUSYBOX), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(&script, LIVES).unwrap();
    let lab = Lab::new().with(&tar, "/tmp/busybox.tar").with(script.path(), "/tmp/lives");
    let output = lab.run(&["sh", "/tmp/lives"]);
    let said = output.stdout_text();
    assert_eq!(output.code, Some(0), "{said}\n{}", output.stderr_text());
    let mut lines = said.lines();
    let acceleration = lines.next().unwrap_or_default();
    assert!(acceleration.starts_with("ok ") && acceleration.ends_with(" KVM"), "{said}");
    assert!(lines.next().is_some_and(|line| line.starts_with("ok ") && line.contains("test VM")), "{said}");
    assert_eq!(lines.take(4).collect::<Vec<_>>(), ["0", "run 3", "refused", "through"], "{said}");
}
