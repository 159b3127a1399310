//! State directories of any kind, users of any kind, and what others on the host get to see.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::Matchlock;
use harness::cache::{self, BUSYBOX};
use harness::tool;

/// Lives through a sandbox's whole life with this script; it gets the binary as `$M`.
const LIFE: &str = "set -e; id=$($M run -d --image busybox --name a -- sleep 1000)
    $M exec a sh -c 'echo kept > /file'; $M stop --timeout 1s a; $M start a; $M exec $id cat /file
    $M volume create data --size 32; $M run --image busybox --disk @data:/data touch /data/file
    $M volume rm data; $M kill a; $M gc; $M rm a; $M list --json";

fn live(matchlock: &Matchlock, home: &Path) -> String {
    let template = matchlock.command(&["version"]);
    let mut command = Command::new("sh");
    command.args(["-c", LIFE]).env("M", template.get_program()).stdin(Stdio::null());
    for (name, value) in template.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    let output = command.env("MATCHLOCK_HOME", home).output().expect("there is a shell");
    assert!(output.status.success(), "{}: {}", home.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_home_may_have_any_name_that_is_text_and_be_a_link() {
    let matchlock = Matchlock::new();
    let base = matchlock.user_home();
    // Longer than the path of a socket may be.
    let long = base.join("l".repeat(120)).join("m".repeat(120));
    fs::create_dir(base.join("real")).unwrap();
    symlink(base.join("real"), base.join("link")).unwrap();
    for home in [long, base.join("with space/ünïcödé"), base.join("link")] {
        let said = live(&matchlock, &home);
        assert!(said.contains("kept\n") && said.ends_with("[]\n"), "{said}");
    }
}

#[test]
fn a_home_that_cannot_be_used_is_told_with_what_to_do() {
    let matchlock = Matchlock::new();
    let not_text = matchlock.user_home().join(OsStr::from_bytes(b"not\xfftext"));
    for (home, code, words) in [
        (not_text, 2, "MATCHLOCK_HOME"),
        // Nobody may write there, root neither.
        (PathBuf::from("/sys/matchlock"), 125, "set MATCHLOCK_HOME"),
    ] {
        let mut command = matchlock.command(&["run", "-d", "--image", BUSYBOX, "--", "true"]);
        let output = command.env("MATCHLOCK_HOME", &home).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_user_without_rights_or_groups_can_do_it_all() {
    assert!(rustix::process::geteuid().is_root(), "this test becomes another user: run it as root");
    let base = tempfile::tempdir().unwrap();
    let program = base.path().join("matchlock");
    harness::matchlock::copy_binary(&program);
    let kernels = tool::user_cache().join("kernels");
    let cache = base.path().join("cache");
    fs::create_dir(&cache).unwrap();
    fs::copy(cache::tar(BUSYBOX), base.path().join("image.tar")).unwrap();
    let copy = Command::new("cp").arg("-rL").arg(&kernels).arg(cache.join("kernels")).status().unwrap();
    let give = Command::new("chown").args(["-R", "65534:65534"]).arg(base.path()).status().unwrap();
    assert!(copy.success() && give.success());
    let script = format!("set -e; cd {}; $M image import busybox < image.tar; {LIFE}", base.path().display());
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("M", &program).env("HOME", base.path()).env("MATCHLOCK_CACHE", &cache);
    command.env("MATCHLOCK_HOME", base.path().join("home")).uid(65534).gid(65534).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("kept\n") && said.ends_with("[]\n"), "{said}");
}

#[test]
fn a_secret_in_the_environment_is_in_no_process_and_no_core_and_no_others_file() {
    let matchlock = Matchlock::new();
    let id = matchlock.detached(&["-e", "KEY=hunter-two", "--image", BUSYBOX, "--", "sleep", "1000"]);
    let pids = [matchlock.owner(&id), matchlock.vmm(&id)].map(|pid| pid.as_raw_nonzero().get());
    for pid in pids {
        for file in ["cmdline", "environ"] {
            let content = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            assert!(!String::from_utf8_lossy(&content).contains("hunter-two"), "{file} of {pid}");
        }
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let words: Vec<&str> = core.split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{core}");
    }
    let sandbox = matchlock.home().join("sandboxes").join(&id);
    for directory in [matchlock.home(), sandbox] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
    }
}

#[test]
fn a_program_that_is_replaced_serves_on_and_the_new_one_starts() {
    let matchlock = Matchlock::new();
    let program = matchlock.user_home().join("matchlock");
    harness::matchlock::copy_binary(&program);
    let run = |words: &[&str]| {
        let template = matchlock.command(words);
        let mut command = Command::new(&program);
        command.args(words).stdin(Stdio::null()).stderr(Stdio::inherit());
        for (name, value) in template.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let id = run(&["run", "-d", "--image", BUSYBOX, "--", "sleep", "1000"]).trim().to_owned();
    // As package managers do it.
    fs::remove_file(&program).unwrap();
    harness::matchlock::copy_binary(&program);
    let old = fs::read_link(format!("/proc/{}/exe", matchlock.owner(&id).as_raw_nonzero())).unwrap();
    assert!(old.to_string_lossy().ends_with("(deleted)"), "{}", old.display());
    assert_eq!(run(&["exec", &id, "echo", "served"]), "served\n");
    run(&["stop", "--timeout", "1s", &id]);
    run(&["start", &id]);
    let new = fs::read_link(format!("/proc/{}/exe", matchlock.owner(&id).as_raw_nonzero())).unwrap();
    assert_eq!(new, program);
}
