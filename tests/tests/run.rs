//! `matchlock run`: what a command sees, gets and gives, and what it leaves behind.

use harness::Matchlock;
use harness::cache::{BUSYBOX, DEBIAN_PYTHON, SCRATCH};

/// Runs a shell line in a busybox sandbox with further flags.
fn sh(matchlock: &Matchlock, flags: &[&str], line: &str) -> harness::Output {
    let mut arguments = vec!["run", "--image", BUSYBOX];
    arguments.extend(flags);
    arguments.extend(["--", "sh", "-c", line]);
    matchlock.run(&arguments)
}

#[test]
fn the_main_job_python_in_a_vm_of_its_own() {
    let matchlock = Matchlock::new();
    let output =
        matchlock.run(&["run", "--image", DEBIAN_PYTHON, "--", "python3", "-c", "print(6*7)"]).success();
    assert_eq!(output.stdout_text(), "42\n");
    matchlock.assert_nothing_left();
}

#[test]
fn the_kernel_is_the_guests_own() {
    let matchlock = Matchlock::new();
    let output = sh(&matchlock, &[], "uname -r; grep -c . /proc/mounts; cat /proc/1/comm").success();
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(output.stdout_text().starts_with("6.12."), "{}", output.stdout_text());
    assert_ne!(output.stdout_text().lines().next(), host.lines().next());
}

#[test]
fn an_image_of_one_static_program_and_nothing_else_runs() {
    let matchlock = Matchlock::new();
    let output = matchlock.run(&["run", "--image", SCRATCH, "--", "/busybox", "ls", "/"]).success();
    let names = output.stdout_text();
    for name in ["busybox", "dev", "etc", "proc", "sys", "tmp"] {
        assert!(names.lines().any(|line| line == name), "{name} in {names}");
    }
}

#[test]
fn exit_codes_are_the_commands_own() {
    let matchlock = Matchlock::new();
    let code = |line: &str| sh(&matchlock, &[], line).code;
    assert_eq!(code("exit 0"), Some(0));
    assert_eq!(code("exit 7"), Some(7));
    assert_eq!(code("exit 255"), Some(255));
    assert_eq!(code("kill -TERM $$"), Some(143));
    assert_eq!(code("kill -KILL $$"), Some(137));
    let direct = |command: &str| matchlock.run(&["run", "--image", BUSYBOX, "--", command]);
    let missing = direct("no-such-command");
    assert_eq!(missing.code, Some(127));
    assert!(missing.stderr_text().contains("no-such-command"), "{}", missing.stderr_text());
    assert_eq!(direct("/etc/passwd").code, Some(126));
    assert_eq!(direct("/etc").code, Some(126));
    matchlock.assert_nothing_left();
}

#[test]
fn our_own_failures_are_125_and_wrong_usage_is_2() {
    let matchlock = Matchlock::new();
    let run = |arguments: &[&str]| {
        let output = matchlock.run(&[&["run"], arguments].concat());
        assert_eq!(output.stdout_text(), "", "{arguments:?}");
        assert!(!output.stderr_text().is_empty(), "{arguments:?}");
        output.code
    };
    let image = ["--image", BUSYBOX];
    let with = |more: &[&'static str]| [&image, more].concat();
    assert_eq!(run(&["--", "true"]), Some(2), "no image");
    assert_eq!(run(&["--image", "Not An Image", "--", "true"]), Some(2));
    assert_eq!(run(&with(&["--cpus", "0", "--", "true"])), Some(2));
    assert_eq!(run(&with(&["--cpus", "1000", "--", "true"])), Some(2));
    assert_eq!(run(&with(&["--memory", "1", "--", "true"])), Some(2));
    assert_eq!(run(&with(&["--disk-size", "0", "--", "true"])), Some(2));
    assert_eq!(run(&with(&["--timeout", "soon", "--", "true"])), Some(2));
    assert_eq!(run(&with(&["--no-such-flag", "--", "true"])), Some(2));
    assert_eq!(run(&with(&["-e", "MATCHLOCK_TEST_UNSET", "--", "true"])), Some(2));
    assert_eq!(run(&with(&["--env-file", "/nonexistent", "--", "true"])), Some(125));
    assert_eq!(run(&with(&["-w", "relative", "--", "true"])), Some(125));
    assert_eq!(run(&with(&["-u", "nobody-here", "--", "true"])), Some(125));
    assert_eq!(run(&image), Some(125), "the image has no command");
    assert_eq!(run(&with(&["--kernel", "/nonexistent", "--", "true"])), Some(125));
    assert_eq!(run(&with(&["--kernel", "/etc/passwd", "--", "true"])), Some(125), "not a kernel");
    assert_eq!(run(&["--image", "127.0.0.1:1/nobody/there", "--", "true"]), Some(125));
    matchlock.assert_nothing_left();
}

#[test]
fn stdout_and_stderr_are_separate_and_binary_safe() {
    let matchlock = Matchlock::new();
    let line =
        "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %o $i)\"; i=$((i+1)); done; echo error >&2";
    let output = sh(&matchlock, &[], line).success();
    assert_eq!(output.stdout, (0..=255).collect::<Vec<u8>>());
    assert_eq!(output.stderr_text(), "error\n");
}

#[test]
fn input_of_any_size_goes_through_unchanged() {
    let matchlock = Matchlock::new();
    let input: Vec<u8> =
        (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let arguments = ["run", "--image", BUSYBOX, "-i", "--", "cat"];
    let output = matchlock.run_with_input(&arguments, input.clone()).success();
    assert!(output.stdout == input, "{} bytes came back", output.stdout.len());
}

#[test]
fn without_interactive_input_is_empty() {
    let matchlock = Matchlock::new();
    let output =
        matchlock.run_with_input(&["run", "--image", BUSYBOX, "--", "wc", "-c"], "not passed on").success();
    assert_eq!(output.stdout_text().trim(), "0");
}

#[test]
fn a_reader_that_goes_away_ends_the_command() {
    let matchlock = Matchlock::new();
    let mut command = matchlock.command(&["run", "--image", BUSYBOX, "--", "yes"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut first = [0; 2];
    std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut first).unwrap();
    assert_eq!((&first, child.wait().unwrap().code()), (b"y\n", Some(141)));
    matchlock.assert_nothing_left();
}

#[test]
fn environment_directory_and_user_are_as_asked() {
    let matchlock = Matchlock::new();
    let file = matchlock.user_home().join("env");
    std::fs::write(&file, "# file\nA=file\nB=file\n").unwrap();
    let flags = ["--env-file", file.to_str().unwrap(), "-e", "B=flag", "-w", "/made/here", "-u", "user"];
    let output = sh(&matchlock, &flags, "echo $A $B $HOME; pwd; id -un; id -Gn; umask").success();
    assert_eq!(output.stdout_text(), "file flag /home/user\n/made/here\nuser\nuser staff\n0022\n");
    let output = sh(&matchlock, &["-u", "1234:5678"], "id -u; id -g; echo $HOME").success();
    assert_eq!(output.stdout_text(), "1234\n5678\n/\n");
}

#[test]
fn a_names_value_comes_from_here_when_none_is_given() {
    let matchlock = Matchlock::new();
    let mut command =
        matchlock.command(&["run", "--image", BUSYBOX, "-e", "HERE", "--", "sh", "-c", "echo $HERE"]);
    let output = command.env("HERE", "from the host").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "from the host\n");
}

#[test]
fn host_names_and_name_servers_are_as_asked() {
    let matchlock = Matchlock::new();
    let flags = ["--hostname", "box", "--add-host", "db:10.1.2.3", "--dns-servers", "9.9.9.9"];
    let output = sh(&matchlock, &flags, "hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf").success();
    let text = output.stdout_text();
    assert!(text.starts_with("box\nbox\n127.0.0.1 localhost localhost.localdomain box\n"), "{text}");
    assert!(text.contains("\n10.1.2.3 db\n"), "{text}");
    assert!(text.ends_with("nameserver 9.9.9.9\n"), "{text}");
    let output = sh(&matchlock, &[], "hostname; cat /etc/resolv.conf").success();
    let text = output.stdout_text();
    assert!(text.starts_with("vm-"), "{text}");
    assert!(text.ends_with("nameserver 8.8.8.8\nnameserver 8.8.4.4\n"), "{text}");
}

#[test]
fn there_is_no_network_but_loopback() {
    let matchlock = Matchlock::new();
    let output = sh(
        &matchlock,
        &["--no-network"],
        "ls /sys/class/net; ip addr show lo | grep -q 'inet 127.0.0.1' && echo up",
    )
    .success();
    assert_eq!(output.stdout_text(), "lo\nup\n");
}

#[test]
fn cpus_memory_and_disk_are_as_asked() {
    let matchlock = Matchlock::new();
    let flags = ["--cpus", "1.5", "--memory", "300", "--disk-size", "100"];
    let output =
        sh(&matchlock, &flags, "nproc; free -m | awk '/Mem/{print $2}'; df -m / | awk 'END{print $2}'")
            .success();
    let numbers: Vec<u32> = output.stdout_text().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers[0], 2);
    assert!((220..=300).contains(&numbers[1]), "{numbers:?}");
    assert!((70..=100).contains(&numbers[2]), "{numbers:?}");
}

#[test]
fn a_full_disk_is_the_commands_problem_only() {
    let matchlock = Matchlock::new();
    let output = sh(
        &matchlock,
        &["--disk-size", "32"],
        "dd if=/dev/zero of=/big bs=1M count=100 2>&1 | tail -n 3; rm /big; echo alive",
    );
    assert!(output.stdout_text().contains("No space left"), "{}", output.stdout_text());
    assert!(output.stdout_text().ends_with("alive\n"), "{}", output.stdout_text());
}

#[test]
fn a_memory_hog_is_killed_and_the_vm_lives() {
    let matchlock = Matchlock::new();
    let output =
        sh(&matchlock, &["--memory", "128"], "head -c 1000000000 /dev/zero | tail >/dev/null; echo alive $?");
    assert!(output.stdout_text().starts_with("alive"), "{} {}", output.stdout_text(), output.stderr_text());
    matchlock.assert_nothing_left();
}

#[test]
fn a_fork_bomb_does_not_outlive_its_time() {
    let matchlock = Matchlock::new();
    let output = sh(&matchlock, &["--timeout", "5"], "b() { b | b & }; b; while :; do sleep 1; done");
    assert_eq!(output.code, Some(124), "{}", output.stderr_text());
    matchlock.assert_nothing_left();
}

#[test]
fn sandboxes_share_nothing_they_write() {
    let matchlock = Matchlock::new();
    let first = sh(&matchlock, &[], "echo mine > /etc/mark; rm /etc/group; ls /etc/mark").success();
    assert_eq!(first.stdout_text(), "/etc/mark\n");
    let second = sh(&matchlock, &[], "ls /etc").success();
    assert!(second.stdout_text().contains("group") && !second.stdout_text().contains("mark"));
}

#[test]
fn the_time_limit_asks_first_and_kills_then() {
    let matchlock = Matchlock::new();
    let polite =
        sh(&matchlock, &["--timeout", "2"], "trap 'echo asked; exit 9' TERM; while :; do sleep 0.1; done");
    assert_eq!((polite.code, polite.stdout_text().as_str()), (Some(124), "asked\n"));
    let stubborn = sh(&matchlock, &["--timeout", "1"], "trap '' TERM; while :; do sleep 0.1; done");
    assert_eq!(stubborn.code, Some(124));
    matchlock.assert_nothing_left();
}

#[test]
fn the_clock_is_right_and_randomness_is_fresh() {
    let matchlock = Matchlock::new();
    let look =
        || sh(&matchlock, &[], "date +%s; head -c 16 /dev/urandom | od -An -tx1").success().stdout_text();
    let (first, second) = (look(), look());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let guest: u64 = second.lines().next().unwrap().parse().unwrap();
    assert!(now.abs_diff(guest) < 30, "host {now}, guest {guest}");
    assert_ne!(first.lines().nth(1), second.lines().nth(1));
}

#[test]
fn graceful_shutdown_lets_the_guest_power_off() {
    let matchlock = Matchlock::new();
    let output = sh(&matchlock, &["--graceful-shutdown", "2s"], "echo bye").success();
    assert_eq!(output.stdout_text(), "bye\n");
    matchlock.assert_nothing_left();
}

#[test]
fn timings_name_the_stages_on_standard_error() {
    let matchlock = Matchlock::new();
    let output = sh(&matchlock, &["--timings=json"], "true").success();
    assert_eq!(output.stdout_text(), "");
    for stage in ["start VMM", "guest kernel", "guest root", "command"] {
        assert!(output.stderr_text().contains(stage), "{stage} in {}", output.stderr_text());
    }
}

#[test]
fn many_sandboxes_at_once() {
    let matchlock = Matchlock::new();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let matchlock = &matchlock;
            scope.spawn(move || {
                let output = sh(matchlock, &[], &format!("echo {number}")).success();
                assert_eq!(output.stdout_text(), format!("{number}\n"));
            });
        }
    });
    matchlock.assert_nothing_left();
}
