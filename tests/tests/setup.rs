//! `matchlock setup` as an ordinary user: it only shows. What it does as root: `lab_setup.rs`.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use harness::{Matchlock, Output, Running, matchlock};
use tempfile::TempDir;

/// Everything that is ever written.
const FILES: [&str; 4] = [
    "/etc/sysctl.d/60-matchlock.conf",
    "/etc/modules-load.d/matchlock.conf",
    "/etc/udev/rules.d/65-matchlock.rules",
    "/etc/apparmor.d/matchlock",
];

const NOBODY: u32 = 65534;

/// The binary where everybody can execute it.
struct Public(TempDir);

impl Public {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), mode).expect("the directory is ours");
        matchlock::copy_binary(&directory.path().join("matchlock"));
        Self(directory)
    }

    /// As this user, but never as root. Nothing but what is asked for is in its environment.
    fn setup(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.0.path().join("matchlock"));
        command.arg("setup").args(arguments).env_clear();
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        Running::start(&mut command, matchlock::LIMIT).wait()
    }
}

#[test]
fn a_dry_run_is_a_script_that_changes_nothing_and_needs_no_root() {
    let there = || FILES.map(|file| std::fs::read(Path::new(file)).ok());
    let (before, public) = (there(), Public::new());
    let script = public.setup(&["linux", "--dry-run"]).success().stdout_text();
    assert!(script.contains("  group kvm\n") && script.contains("  user namespaces\n"), "{script}");
    for line in script.lines() {
        assert!(["# ", "sudo ", "printf "].iter().any(|start| line.starts_with(start)), "{line}");
    }
    let parsed = Command::new("sh").args(["-n", "-c", &script]).output().unwrap();
    assert!(parsed.status.success(), "{script}");
    let json = public.setup(&["linux", "--dry-run", "--json"]).success().stdout;
    let steps: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
    let commands = steps.iter().flat_map(|step| step["commands"].as_array().unwrap());
    let commands: Vec<_> = commands.map(|command| command.as_str().unwrap()).collect();
    let shown: Vec<_> = script.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(commands, shown);
    for step in steps {
        let state = step["state"].as_str().unwrap();
        assert!(["ok", "missing", "skipped"].contains(&state), "{step}");
        assert_eq!(state == "missing", !step["commands"].as_array().unwrap().is_empty(), "{step}");
    }
    // Root's dry run changes nothing either.
    assert_eq!(Matchlock::without_images().run(&["setup", "linux", "--dry-run"]).code, Some(0));
    assert_eq!(public.setup(&["linux", "--dry-run"]).success().stdout_text(), script);
    assert_eq!(there(), before);
}

#[test]
fn without_root_it_says_to_use_sudo() {
    let public = Public::new();
    for (arguments, sudo) in [
        (&["linux"][..], "matchlock setup linux"),
        (&["linux", "--json"], "matchlock setup linux"),
        (&["user", "ada"], "matchlock setup user ada"),
    ] {
        let output = public.setup(arguments);
        assert_eq!((output.code, output.stdout_text().as_str()), (Some(1), ""), "{arguments:?}");
        let stderr = output.stderr_text();
        // Where `sudo` does not look for programs.
        let sudo = format!("sudo {}/{sudo}", public.0.path().display());
        assert!(stderr.contains("takes root") && stderr.contains(&sudo), "{stderr}");
    }
}

#[test]
fn a_user_who_is_unknown_is_an_error() {
    for name in ["no-such-user", "root:x", ""] {
        let output = Public::new().setup(&["user", name, "--dry-run"]);
        assert_eq!((output.code, output.stdout_text().as_str()), (Some(1), ""));
        let stderr = output.stderr_text();
        assert!(stderr.contains(&format!("there is no user {name:?}")), "{stderr}");
    }
}

#[test]
fn setup_has_help_and_wants_to_know_what() {
    let matchlock = Matchlock::without_images();
    for words in [&["setup", "linux", "--help"], &["setup", "user", "--help"]] {
        let help = matchlock.run(words).success().stdout_text();
        assert!(help.contains("Examples:") && help.contains("--dry-run"), "{help}");
    }
    for words in [&["setup"][..], &["setup", "user"], &["setup", "windows"]] {
        assert_eq!(matchlock.run(words).code, Some(2), "{words:?}");
    }
}
