//! Sandboxes on KVM by both VMMs, in a lab: `scripts/lab`, a VM whose emulated CPU has virtualization. What
//! is slow there is the lab, so this tells whether it works, and how the VMMs compare.
//!
//! A lab takes long to boot, so each test is a script that does much. What it says is compared word for word.

mod faults;
mod network;

use harness::Lab;
use harness::cache::{self, BUSYBOX};
use tempfile::NamedTempFile;

#[test]
fn a_lab_runs_a_command_as_an_ordinary_user_and_ends_with_its_exit_code() {
    let output = Lab::new().run(&["sh", "-c", "id -nG; echo \"it's err\" >&2; test -w /etc || exit 7"]);
    assert_eq!((output.code, output.stdout_text().as_str()), (Some(7), "lab kvm\n"));
    assert_eq!(output.stderr_text().lines().last(), Some("it's err"));
}

#[test]
fn sandboxes_run_on_kvm_as_an_ordinary_user() {
    compare(Lab::new(), include_str!("lives.sh"), include_str!("lives.txt"));
}

/// A file with this text, for a lab.
fn file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().expect("there is room for temporary files");
    std::fs::write(&file, text).expect("the file was just made");
    file
}

/// Runs a script in a lab with an image, and compares what it says, but for the lines that begin with
/// `time: `. They are shown.
fn compare(lab: Lab, script: &str, expected: &str) {
    let (tar, file) = (cache::tar(BUSYBOX), file(script));
    let lab = lab.with(&tar, "/tmp/busybox.tar").with(file.path(), "/tmp/script");
    let output = lab.run(&["sh", "/tmp/script"]);
    let said = output.stdout_text();
    let (times, lines): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.starts_with("time: "));
    for time in times {
        println!("{time}");
    }
    let expected: Vec<&str> = expected.lines().collect();
    let differs = lines.iter().zip(&expected).find(|(said, expected)| said != expected);
    assert_eq!(differs, None, "{said}\n{}", output.stderr_text());
    assert_eq!((lines.len(), output.code), (expected.len(), Some(0)), "{said}\n{}", output.stderr_text());
}
