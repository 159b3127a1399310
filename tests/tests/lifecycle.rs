//! Sandboxes that live: left running, found, entered, logged, stopped, started, killed, removed.

use std::time::{Duration, Instant};

use harness::Matchlock;
use harness::cache::{BUSYBOX, DEBIAN_PYTHON};
use rustix::process::Signal;

const SLEEP: [&str; 5] = ["--image", BUSYBOX, "--", "sleep", "1000"];

#[test]
fn a_detached_sandbox_lives_until_it_is_killed_and_removed() {
    let matchlock = Matchlock::new();
    let id = matchlock.detached(&[&["-e", "VISIBLE=from-run"], &SLEEP[..]].concat());
    let [row] = &matchlock.list()[..] else { panic!("one sandbox") };
    assert_eq!((row["id"].as_str(), row["status"].as_str()), (Some(id.as_str()), Some("running")));

    let table = matchlock.run(&["ps", "--running"]).success().stdout_text();
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "STATUS", "IMAGE", "CREATED", "PID"]);
    assert_eq!(lines[1][..3], [&id, "running", "busybox:latest"]);
    assert_eq!(lines[1].last(), Some(&row["pid"].to_string().as_str()));

    let got = matchlock.run(&["get", &id]).success();
    let got: serde_json::Value = serde_json::from_slice(&got.stdout).unwrap();
    assert_eq!(got["config"]["env"]["VISIBLE"], "from-run");
    assert_eq!(got["config"]["resources"]["memory_mb"], 512);
    let inspected = matchlock.inspect(&id);
    assert_eq!((&inspected["vm"]["id"], &inspected["lifecycle"]["vm_id"]), (&got["id"], &got["id"]));
    assert_eq!(inspected["lifecycle"]["phase"], "running");
    let phases: Vec<_> = inspected["history"].as_array().unwrap().iter().map(|entry| &entry["to"]).collect();
    assert_eq!(phases, ["creating", "created", "starting", "running"]);

    let output = matchlock.run(&["exec", &id, "--", "sh", "-c", "echo $VISIBLE; hostname"]).success();
    assert_eq!(output.stdout_text(), format!("from-run\n{id}\n"));
    let refused = matchlock.run(&["rm", &id]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr_text().contains("is running"), "{}", refused.stderr_text());

    assert_eq!(matchlock.run(&["kill", &id]).success().stdout_text(), format!("Killed {id}\n"));
    assert_eq!(matchlock.list()[0]["status"], "stopped");
    assert_eq!(matchlock.run(&["kill", &id]).code, Some(1), "it is not running");
    assert_eq!(matchlock.run(&["rm", &id]).success().stdout_text(), format!("Removed {id}\n"));
    matchlock.assert_nothing_left();
}

#[test]
fn what_does_not_exist_is_not_found_and_what_is_missing_is_said() {
    let matchlock = Matchlock::new();
    for command in ["get", "inspect", "kill", "rm", "log", "stop", "start", "gc"] {
        let output = matchlock.run(&[command, "vm-00000000"]);
        assert_eq!(output.code, Some(1), "{command}");
        assert!(output.stderr_text().contains("not found"), "{command}: {}", output.stderr_text());
    }
    let output = matchlock.run(&["exec", "vm-00000000", "true"]);
    assert_eq!(output.code, Some(125));
    assert!(output.stderr_text().contains("not found"), "{}", output.stderr_text());
    for command in ["kill", "rm", "stop", "start"] {
        let output = matchlock.run(&[command]);
        assert_eq!(output.code, Some(2), "{command}");
        assert!(output.stderr_text().contains("VM ID required"), "{command}: {}", output.stderr_text());
    }
    assert_eq!(matchlock.run(&["list"]).success().stdout_text().trim(), "ID  STATUS  IMAGE  CREATED  PID");
    assert_eq!(matchlock.run(&["prune"]).success().stdout_text(), "Pruned 0 VMs\n");
    assert_eq!(matchlock.run(&["gc"]).success().stdout_text(), "Reconciled 0 VMs\n");
}

#[test]
fn a_kept_sandbox_stays_in_the_foreground_until_it_is_told_to_end() {
    let matchlock = Matchlock::new();
    let running = matchlock.spawn(&["run", "--image", BUSYBOX, "--rm=false", "--", "sh", "-c", "echo done"]);
    running.wait_for_stderr("is running");
    running.wait_for_stdout("done");
    let [row] = &matchlock.list()[..] else { panic!("one sandbox") };
    assert_eq!(row["pid"].as_i64(), Some(running.pid().as_raw_nonzero().get().into()), "its owner is `run`");
    let id = row["id"].as_str().unwrap().to_owned();
    let output = matchlock.run(&["exec", &id, "echo", "hello"]).success();
    assert_eq!(output.stdout_text(), "hello\n");
    running.signal(Signal::INT);
    let output = running.wait().success();
    assert!(output.stderr_text().contains(&format!("Sandbox {id} is running")), "{}", output.stderr_text());
    assert_eq!(matchlock.list()[0]["status"], "stopped");
    assert_eq!(matchlock.run(&["prune"]).success().stdout_text(), format!("Pruned {id}\nPruned 1 VMs\n"));
    matchlock.assert_nothing_left();
}

#[test]
fn a_sandbox_that_is_not_kept_is_listed_while_it_runs_and_gone_when_killed() {
    let matchlock = Matchlock::new();
    let running = matchlock.spawn(&["run", "--image", BUSYBOX, "--", "sh", "-c", "echo up; sleep 1000"]);
    running.wait_for_stdout("up");
    let id = matchlock.list()[0]["id"].as_str().unwrap().to_owned();
    let _ = matchlock.run(&["exec", &id, "true"]).success();
    let _ = matchlock.run(&["kill", &id]).success();
    let output = running.wait();
    assert_eq!(output.code, Some(137));
    assert!(output.stderr_text().contains("ended from elsewhere"), "{}", output.stderr_text());
    matchlock.assert_nothing_left();
}

#[test]
fn a_stopped_sandbox_starts_again_with_its_disk_and_its_configuration() {
    let matchlock = Matchlock::new();
    let id = matchlock.detached(&[
        "--image",
        BUSYBOX,
        "--name",
        "keeper",
        "-e",
        "COLOR=red",
        "--hostname",
        "castle",
        "--memory",
        "256",
        "--",
        "sh",
        "-c",
        "echo run >> /runs; sleep 1000",
    ]);
    let exec =
        |line: &str| matchlock.run(&["exec", "keeper", "--", "sh", "-c", line]).success().stdout_text();
    assert_eq!(exec("mkdir -p /data; echo kept > /data/file; echo $COLOR $(hostname)"), "red castle\n");
    assert_eq!(matchlock.run(&["stop", "keeper"]).success().stdout_text(), format!("Stopped {id}\n"));
    assert_eq!(matchlock.list()[0]["status"], "stopped");
    let refused = matchlock.run(&["exec", "keeper", "true"]);
    assert_eq!(refused.code, Some(125));
    assert!(refused.stderr_text().contains("matchlock start"), "{}", refused.stderr_text());

    assert_eq!(matchlock.run(&["start", "keeper"]).success().stdout_text(), format!("Started {id}\n"));
    assert_eq!(exec("cat /data/file; echo $COLOR $(hostname); wc -l < /runs"), "kept\nred castle\n2\n");
    let again = matchlock.run(&["start", "keeper"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr_text().contains("is running"), "{}", again.stderr_text());
    let _ = matchlock.run(&["kill", &id]).success();
    // Killed without warning, the disk is as a machine without power leaves it: it must mount again.
    let _ = matchlock.run(&["start", &id]).success();
    assert_eq!(exec("cat /data/file"), "kept\n");
    let _ = matchlock.run(&["stop", "--timeout", "1s", &id]).success();
    let _ = matchlock.run(&["rm", "keeper"]).success();
    matchlock.assert_nothing_left();
}

#[test]
fn a_stopped_sandbox_keeps_the_layers_of_its_image() {
    let matchlock = Matchlock::without_images();
    let tar = std::fs::read(harness::cache::tar(BUSYBOX)).unwrap();
    let _ = matchlock.run_with_input(&["image", "import", "box"], tar).success();
    let id = matchlock.detached(&["--image", "box", "--", "sleep", "1000"]);
    let _ = matchlock.run(&["stop", "--timeout", "0s", &id]).success();
    let _ = matchlock.run(&["image", "rm", "box"]).success();
    let _ = matchlock.run(&["image", "gc"]).success();
    let _ = matchlock.run(&["start", &id]).success();
    let _ = matchlock.run(&["exec", &id, "true"]).success();
    let _ = matchlock.run(&["kill", &id]).success();
    let _ = matchlock.run(&["rm", &id]).success();
    let freed = matchlock.run(&["image", "gc", "--json"]).success().stdout_text();
    assert!(freed.contains("\"layers\": 1"), "{freed}");
    matchlock.assert_nothing_left();
}

#[test]
fn names_and_prefixes_lead_to_the_sandbox() {
    let matchlock = Matchlock::new();
    let id = matchlock.detached(&[&["--name", "web"], &SLEEP[..]].concat());
    for named in [&id, "web", &id[..7], &id[3..9]] {
        let _ = matchlock.run(&["exec", named, "true"]).success();
    }
    let taken = matchlock.run(&[&["run", "-d", "--name", "web"], &SLEEP[..]].concat());
    assert_eq!(taken.code, Some(125));
    assert!(taken.stderr_text().contains("web"), "{}", taken.stderr_text());
    for wrong in ["", "-x", "a b", "vm-00000000", "../x"] {
        let refused = matchlock.run(&[&["run", "-d", &format!("--name={wrong}")], &SLEEP[..]].concat());
        assert_eq!(refused.code, Some(2), "{wrong:?}");
    }
    assert_eq!(matchlock.list().len(), 1);
    let table = matchlock.run(&["list"]).success().stdout_text();
    assert!(table.contains(" web "), "{table}");
    let _ = matchlock.run(&["kill", "--all"]).success();
    let _ = matchlock.run(&["rm", "--stopped"]).success();
    matchlock.assert_nothing_left();
}

#[test]
fn a_detached_command_that_cannot_start_is_told_at_once_and_leaves_nothing() {
    let matchlock = Matchlock::new();
    let output = matchlock.run(&["run", "-d", "--image", BUSYBOX, "--", "no-such-command"]);
    assert_eq!((output.code, output.stdout_text().as_str()), (Some(127), ""));
    assert!(output.stderr_text().contains("no-such-command"), "{}", output.stderr_text());
    let output = matchlock.run(&["run", "-d", "-it", "--image", BUSYBOX, "--", "sh"]);
    assert_eq!(output.code, Some(2));
    assert!(output.stderr_text().contains("--detach cannot be combined"), "{}", output.stderr_text());
    let output = matchlock.run(&["run", "-d", "--kernel", "/etc/passwd", "--image", BUSYBOX, "--", "sh"]);
    assert_eq!(output.code, Some(125));
    matchlock.assert_nothing_left();
}

#[test]
fn a_detached_sandbox_that_is_not_kept_goes_with_its_command() {
    let matchlock = Matchlock::new();
    let output = matchlock.run(&["run", "-d", "--rm", "--image", BUSYBOX, "--", "sleep", "2"]).success();
    assert!(output.stdout_text().starts_with("vm-"));
    let deadline = Instant::now() + Duration::from_secs(30);
    while !matchlock.list().is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(100));
    }
    matchlock.assert_nothing_left();
}

#[test]
fn the_log_has_what_commands_wrote_and_follows() {
    let matchlock = Matchlock::new();
    let id = matchlock.detached(&[
        "--image",
        BUSYBOX,
        "--",
        "sh",
        "-c",
        "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done",
    ]);
    let _ = matchlock.run(&["exec", &id, "echo", "from exec"]).success();
    let log = matchlock.run(&["log", &id]).success().stdout_text();
    assert!(log.contains("line 0\n") && log.contains("from exec\n"), "{log}");
    let follower = matchlock.spawn(&["log", "-f", &id]);
    follower.wait_for_stdout("line 0\n");
    follower.wait_for_stdout("line 12\n");
    let _ = matchlock.run(&["kill", &id]).success();
    let output = follower.wait().success();
    assert!(output.stdout_text().contains("from exec\n"));
    let log = matchlock.run(&["log", &id]).success().stdout_text();
    assert!(log.starts_with(&output.stdout_text()[..100]), "a stopped sandbox has its log");
    let interrupted = matchlock.spawn(&["log", "-f", &id]);
    let _ = interrupted.wait().success();
    let _ = matchlock.run(&["rm", &id]).success();
}

#[test]
fn an_endless_log_is_bounded_on_disk() {
    let matchlock = Matchlock::new();
    let id = matchlock.detached(&[
        "--image",
        BUSYBOX,
        "--",
        "sh",
        "-c",
        "dd if=/dev/zero bs=64k count=400 2>/dev/null | tr '\\0' x; echo; echo the end; sleep 1000",
    ]);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let log = matchlock.run(&["log", &id]).success();
        assert!(log.stdout.len() < 9 << 20);
        if log.stdout.ends_with(b"\nthe end\n") {
            assert!(log.stdout.len() > 4 << 20);
            break;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(200));
    }
    let _ = matchlock.run(&["kill", &id]).success();
}

#[test]
fn a_python_session_survives_in_a_kept_sandbox() {
    let matchlock = Matchlock::new();
    let id = matchlock.detached(&["--image", DEBIAN_PYTHON, "--", "sleep", "1000"]);
    let python =
        |code: &str| matchlock.run(&["exec", &id, "--", "python3", "-c", code]).success().stdout_text();
    python("open('/tmp/state', 'w').write('41')");
    assert_eq!(python("print(int(open('/tmp/state').read()) + 1)"), "42\n");
    let _ = matchlock.run(&["kill", &id]).success();
}
