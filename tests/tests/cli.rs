//! The command line itself: version, help, completions, diagnosis, kernels.

use harness::Matchlock;

#[test]
fn both_versions_are_the_same_line() {
    let matchlock = Matchlock::without_images();
    let flag = matchlock.run(&["--version"]).success().stdout_text();
    let command = matchlock.run(&["version"]).success().stdout_text();
    assert_eq!(flag, command);
    let pieces: Vec<_> = flag.split_whitespace().collect();
    assert_eq!((pieces[0], pieces[2], pieces[4]), ("matchlock", "(commit:", "built:"), "{flag}");
    let json = matchlock.run(&["version", "--json"]).success().stdout_text();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["version"], pieces[1]);
}

#[test]
fn every_command_has_help() {
    let matchlock = Matchlock::without_images();
    let commands = [
        "run",
        "pull",
        "image",
        "image import",
        "kernel",
        "kernel build",
        "diagnose",
        "version",
        "completions",
    ];
    for command in commands {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = matchlock.run(&words).success().stdout_text();
        assert!(help.contains("Usage: matchlock"), "{command}: {help}");
    }
    for command in ["run", "pull", "image import", "kernel build", "completions"] {
        let words: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        assert!(matchlock.run(&words).stdout_text().contains("Examples:"), "{command}");
    }
}

#[test]
fn unknown_commands_and_flags_are_usage_errors() {
    let matchlock = Matchlock::without_images();
    for words in [&["no-such-command"][..], &["run", "--no-such-flag"], &["image"], &["image", "rm"], &[]] {
        let output = matchlock.run(words);
        assert_eq!((output.code, output.stdout_text().as_str()), (Some(2), ""), "{words:?}");
    }
}

#[test]
fn completions_know_the_commands() {
    let matchlock = Matchlock::without_images();
    for shell in ["bash", "zsh", "fish"] {
        let script = matchlock.run(&["completions", shell]).success().stdout_text();
        assert!(script.contains("diagnose") && script.contains("timings"), "{shell}");
    }
}

#[test]
fn diagnose_boots_a_vm_and_names_what_is_missing_with_its_fix() {
    let matchlock = Matchlock::without_images();
    let findings = |command: &mut std::process::Command| {
        let output = command.output().unwrap();
        let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), findings)
    };
    let (code, all) = findings(&mut matchlock.command(&["diagnose", "--json"]));
    assert_eq!(code, Some(0), "{all:?}");
    let subjects: Vec<_> = all.iter().filter_map(|finding| finding["subject"].as_str()).collect();
    for subject in [
        "acceleration",
        "qemu",
        "kernel",
        "test VM",
        "wall: user namespaces",
        "image store",
        "free space for images",
    ] {
        assert!(subjects.contains(&subject), "{subject} in {subjects:?}");
    }
    for (variable, value, subject) in
        [("PATH", "/nonexistent", "qemu"), ("MATCHLOCK_KERNEL", "/nonexistent", "kernel")]
    {
        let (code, all) = findings(matchlock.command(&["diagnose", "--json"]).env(variable, value));
        assert_eq!(code, Some(1));
        let finding = all.iter().find(|finding| finding["subject"] == subject).unwrap();
        assert_eq!(finding["severity"], "failure");
        assert!(finding["fix"].is_string(), "{finding}");
    }
    matchlock.assert_nothing_left();
}

#[test]
fn what_the_environment_asks_for_is_diagnosed_and_nonsense_is_told() {
    let matchlock = Matchlock::without_images();
    let diagnose = |variable: &str, value: &str| {
        let mut command = matchlock.command(&["diagnose", "--json"]);
        command.env("MATCHLOCK_KERNEL", "/nonexistent").env("PATH", "/nonexistent").env(variable, value);
        let output = command.output().unwrap();
        let firecracker = serde_json::from_slice::<Vec<serde_json::Value>>(&output.stdout)
            .map(|all| all.into_iter().find(|finding| finding["subject"] == "firecracker").unwrap());
        (output.status.code(), firecracker.ok(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (_, firecracker, _) = diagnose("MATCHLOCK_BACKEND", "");
    assert_eq!(firecracker.unwrap()["severity"], "ok", "auto can do without");
    let (_, firecracker, _) = diagnose("MATCHLOCK_BACKEND", "firecracker");
    let firecracker = firecracker.unwrap();
    assert!(firecracker["severity"] == "failure" && firecracker["fix"].is_string(), "{firecracker}");
    for (variable, value) in [("MATCHLOCK_BACKEND", "vbox"), ("MATCHLOCK_HUGE_PAGES", "7")] {
        let (code, _, stderr) = diagnose(variable, value);
        assert!(code == Some(2) && stderr.contains(variable), "{stderr}");
    }
    let mut command = matchlock.command(&["list"]);
    let output = command.env("MATCHLOCK_LOG", "foo=bar=baz").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("MATCHLOCK_LOG"), "{stderr}");
}

#[test]
fn without_qemu_or_a_kernel_a_run_says_what_to_do() {
    let matchlock = Matchlock::new();
    let run = ["run", "--image", harness::cache::BUSYBOX, "--", "true"];
    let empty = tempfile::tempdir().unwrap();
    let output = matchlock.command(&run).env("PATH", "/nonexistent").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("apt install qemu-system-x86"), "{stderr}");
    let mut command = matchlock.command(&run);
    command.env("MATCHLOCK_CACHE", empty.path()).env_remove("MATCHLOCK_KERNEL").env_remove("SANDBOX_KERNEL");
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("matchlock kernel build"), "{stderr}");
}

#[test]
fn kernels_are_listed_and_removed_by_the_beginning_of_their_name() {
    let matchlock = Matchlock::without_images();
    let list = || -> Vec<serde_json::Value> {
        serde_json::from_str(&matchlock.run(&["kernel", "ls", "--json"]).success().stdout_text()).unwrap()
    };
    let kernels = list();
    let name = kernels.iter().find(|kernel| kernel["default"] == true).unwrap()["name"].as_str().unwrap();
    let table = matchlock.run(&["kernel", "ls"]).success().stdout_text();
    assert!(table.contains(&format!("{name}*")), "{table}");
    let removed = matchlock.run(&["kernel", "rm", &name[..12]]).success();
    assert_eq!(removed.stdout_text(), format!("Removed {name}\n"));
    assert_eq!(list().len(), kernels.len() - 1);
    assert_eq!(matchlock.run(&["kernel", "rm", "no-such"]).code, Some(1));
}
