//! Everything that may die, dies, at every step: afterwards `gc` leaves nothing, and others never
//! notice.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::Matchlock;
use harness::cache::BUSYBOX;
use rustix::process::{Signal, kill_process};

/// The variable that makes a process kill itself when it is about to write to the database, or has
/// just written, for the so many-th time. Between two of these lies each step of launch and
/// teardown.
const CRASH: &str = "MATCHLOCK_CRASH_AT_STEP";

/// More steps than there are.
const MAX_STEPS: u32 = 200;

/// Crashes a command at every one of its steps, until it is through without a crash; `check` looks
/// at what it left.
fn crash_at_every_step(matchlock: &Matchlock, arguments: &[&str], mut check: impl FnMut(u32)) -> u32 {
    for step in 1..MAX_STEPS {
        let mut command = matchlock.command(arguments);
        let output = command.env(CRASH, step.to_string()).output().expect("the binary starts");
        // The owner in the background may have died instead of this one.
        let through = output.status.success();
        check(step);
        if through {
            return step;
        }
    }
    panic!("more than {MAX_STEPS} steps");
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn kill_9_at_every_step_of_a_run_leaves_nothing_after_gc() {
    let matchlock = Matchlock::new();
    let witness = matchlock.detached(&["--image", BUSYBOX, "--", "sleep", "1000"]);
    let steps = crash_at_every_step(&matchlock, &["run", "--image", BUSYBOX, "--", "true"], |step| {
        let _ = matchlock.run(&["gc"]).success();
        let left: Vec<_> = fs::read_dir(matchlock.home().join("sandboxes")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "after a crash at step {step}: {left:?}");
        assert_eq!(matchlock.list().len(), 1, "after a crash at step {step}");
        let _ = matchlock.run(&["exec", &witness, "true"]).success();
    });
    assert!(steps > 10, "{steps} steps: the crash points are not reached");
    let _ = matchlock.run(&["kill", &witness]).success();
    let _ = matchlock.run(&["rm", &witness]).success();
    matchlock.assert_nothing_left();
}

#[test]
fn kill_9_at_every_step_of_a_kept_sandboxes_life_leaves_at_most_its_disk() {
    let matchlock = Matchlock::new();
    let run = ["run", "-d", "--image", BUSYBOX, "--", "sleep", "1000"];
    let steps = crash_at_every_step(&matchlock, &run, |step| {
        let _ = matchlock.run(&["gc", "--force-running"]).success();
        // One that ran is stopped, and can be removed; one that did not is gone.
        for row in matchlock.list() {
            assert_eq!(row["status"], "stopped", "after a crash at step {step}");
        }
        let _ = matchlock.run(&["prune"]).success();
        matchlock.assert_nothing_left();
    });
    assert!(steps > 10, "{steps} steps: the crash points are not reached");
}

#[test]
fn kill_9_at_every_step_of_stop_start_and_rm_loses_no_data() {
    let matchlock = Matchlock::new();
    let id = matchlock.detached(&["--image", BUSYBOX, "--", "sleep", "1000"]);
    let _ = matchlock.run(&["exec", &id, "--", "sh", "-c", "echo kept > /file; sync"]).success();
    for verb in ["stop", "start"] {
        let steps = crash_at_every_step(&matchlock, &[verb, &id], |step| {
            let _ = matchlock.run(&["gc"]).success();
            if verb == "stop" {
                // Whatever became of the owner, the sandbox can run again.
                if matchlock.list()[0]["status"] != "running" {
                    let _ = matchlock.run(&["start", &id]).success();
                }
            } else {
                let _ = matchlock.run(&["kill", &id]);
                let status = matchlock.list()[0]["status"].clone();
                assert!(
                    status == "stopped" || status == "failed",
                    "{status} after a crash of {verb} at {step}"
                );
            }
        });
        assert!(steps >= 1);
    }
    if matchlock.list()[0]["status"] != "running" {
        let _ = matchlock.run(&["start", &id]).success();
    }
    assert_eq!(matchlock.run(&["exec", &id, "cat", "/file"]).success().stdout_text(), "kept\n");
    let _ = matchlock.run(&["kill", &id]).success();
    for step in 1..MAX_STEPS {
        let _ = matchlock.command(&["rm", &id]).env(CRASH, step.to_string()).output().unwrap();
        let _ = matchlock.run(&["gc"]).success();
        let left = matchlock.list();
        if left.is_empty() {
            break;
        }
        assert_eq!(left[0]["status"], "stopped", "after a crash at step {step} it is as it was, or gone");
    }
    matchlock.assert_nothing_left();
}

#[test]
fn kill_9_of_the_owner_kills_its_vm_and_gc_tidies_up() {
    let matchlock = Matchlock::new();
    let [victim, witness] = ["a", "b"]
        .map(|name| matchlock.detached(&["--name", name, "--image", BUSYBOX, "--", "sleep", "1000"]));
    let _ = matchlock.run(&["exec", &victim, "--", "sh", "-c", "echo kept > /file; sync"]).success();
    let client = matchlock.spawn(&["exec", &victim, "--", "sh", "-c", "echo ready; sleep 1000"]);
    client.wait_for_stdout("ready");
    let vmm = matchlock.vmm(&victim);
    kill_process(matchlock.owner(&victim), Signal::KILL).unwrap();
    let output = client.wait();
    assert_eq!(output.code, Some(125), "{}", output.stderr_text());
    wait_for("the VMM's end", || rustix::process::test_kill_process(vmm).is_err());
    let status = |id: &str| {
        matchlock
            .list()
            .iter()
            .find(|row| row["id"] == id)
            .map(|row| row["status"].as_str().unwrap().to_owned())
    };
    assert_eq!(status(&victim).as_deref(), Some("crashed"));
    let refused = matchlock.run(&["exec", &victim, "true"]);
    assert_eq!(refused.code, Some(125));
    let text = matchlock.run(&["gc"]).success().stdout_text();
    assert!(text.contains(&format!("{victim}: cleaned ")), "{text}");
    assert!(text.contains(&format!("{witness}: skipped (running)")), "{text}");
    assert!(text.ends_with("Reconciled 2 VMs\n"), "{text}");
    assert_eq!(status(&victim).as_deref(), Some("stopped"));
    assert!(!matchlock.home().join("sandboxes").join(&victim).join("rpc.sock").exists());
    let again = matchlock.run(&["gc", &victim]).success().stdout_text();
    assert_eq!(again, format!("{victim}: no resources to clean\nReconciled 1 VMs\n"));
    let _ = matchlock.run(&["exec", &witness, "true"]).success();
    let _ = matchlock.run(&["start", &victim]).success();
    assert_eq!(matchlock.run(&["exec", "a", "cat", "/file"]).success().stdout_text(), "kept\n");
    let _ = matchlock.run(&["kill", "--all"]).success();
    let _ = matchlock.run(&["prune"]).success();
    matchlock.assert_nothing_left();
}

/// What ends a VM from below or from within, and what its owner makes of it.
#[test]
fn a_vm_that_dies_ends_its_sandbox_and_says_why() {
    let matchlock = Matchlock::new();
    let privileged = ["--privileged", "--image", BUSYBOX, "--", "sleep", "1000"];
    let within = |line: &'static str| {
        move |matchlock: &Matchlock, id: &str| {
            let _ = matchlock.run(&["exec", id, "--", "sh", "-c", line]);
        }
    };
    type Death = Box<dyn Fn(&Matchlock, &str)>;
    let deaths: [(&str, Death); 2] = [
        ("kill -9 of QEMU", Box::new(|matchlock, id| kill_process(matchlock.vmm(id), Signal::KILL).unwrap())),
        ("a kernel panic", Box::new(within("echo 2 > /proc/sys/vm/panic_on_oom; tail /dev/zero"))),
    ];
    for (name, death) in deaths {
        let id = matchlock.detached(&privileged);
        death(&matchlock, &id);
        wait_for(name, || {
            matchlock.list()[0]["status"] != "running" && matchlock.list()[0]["status"] != "stopping"
        });
        assert_eq!(matchlock.list()[0]["status"], "stopped", "{name}");
        let inspected = matchlock.inspect(&id);
        let error = inspected["lifecycle"]["last_error"].as_str().unwrap_or_default().to_owned();
        assert!(error.contains("VM"), "{name}: {inspected:#}");
        let _ = matchlock.run(&["rm", &id]).success();
        matchlock.assert_nothing_left();
    }
}

#[test]
fn a_deleted_socket_is_told_and_the_sandbox_can_still_be_ended() {
    let matchlock = Matchlock::new();
    let id = matchlock.detached(&["--image", BUSYBOX, "--", "sleep", "1000"]);
    fs::remove_file(matchlock.home().join("sandboxes").join(&id).join("rpc.sock")).unwrap();
    let output = matchlock.run(&["exec", &id, "true"]);
    assert_eq!(output.code, Some(125));
    assert!(output.stderr_text().contains("hint"), "{}", output.stderr_text());
    let _ = matchlock.run(&["kill", &id]).success();
    let _ = matchlock.run(&["rm", &id]).success();
    matchlock.assert_nothing_left();
}

#[test]
fn an_owner_that_hangs_is_killed() {
    let matchlock = Matchlock::new();
    let id = matchlock.detached(&["--image", BUSYBOX, "--", "sleep", "1000"]);
    kill_process(matchlock.owner(&id), Signal::STOP).unwrap();
    let _ = matchlock.run(&["kill", &id]).success();
    assert_eq!(matchlock.list()[0]["status"], "stopped");
    let _ = matchlock.run(&["rm", &id]).success();
    matchlock.assert_nothing_left();
}

#[test]
fn a_damaged_database_is_kept_and_told_and_can_be_rebuilt() {
    let matchlock = Matchlock::new();
    let stopped = matchlock.detached(&["--name", "old", "--image", BUSYBOX, "--", "sleep", "1000"]);
    let _ = matchlock.run(&["exec", &stopped, "--", "sh", "-c", "echo kept > /file"]).success();
    let _ = matchlock.run(&["stop", "--timeout", "1s", &stopped]).success();
    let running = matchlock.detached(&["--name", "new", "--image", BUSYBOX, "--", "sleep", "1000"]);
    for suffix in ["", "-wal", "-shm"] {
        let file = matchlock.home().join(format!("state.db{suffix}"));
        if file.exists() {
            fs::write(file, b"this is not a database, and long enough to be sure of it ".repeat(200))
                .unwrap();
        }
    }
    for command in [&["list"][..], &["run", "--image", BUSYBOX, "--", "true"], &["gc"]] {
        let output = matchlock.run(command);
        assert_ne!(output.code, Some(0), "{command:?}");
        let text = output.stderr_text();
        assert!(text.contains("state.db.corrupt-") && text.contains("--rebuild-state"), "{text}");
    }
    // Who takes the database away altogether loses none of what is kept.
    for entry in fs::read_dir(matchlock.home()).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("state.db") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let unknown = matchlock.run(&["gc"]).success().stderr_text();
    assert!(unknown.contains(&stopped) && unknown.contains("--rebuild-state"), "{unknown}");
    let _ = matchlock.run(&["gc", "--rebuild-state"]).success();
    let mut rows: Vec<_> =
        matchlock.list().iter().map(|row| (row["id"].clone(), row["status"].clone())).collect();
    rows.sort_by_key(|(_, status)| status.to_string());
    assert_eq!(rows, [(running.clone().into(), "running".into()), (stopped.into(), "stopped".into())]);
    let _ = matchlock.run(&["exec", "new", "true"]).success();
    let _ = matchlock.run(&["start", "old"]).success();
    assert_eq!(matchlock.run(&["exec", "old", "cat", "/file"]).success().stdout_text(), "kept\n");
    let _ = matchlock.run(&["kill", "--all"]).success();
    let _ = matchlock.run(&["gc"]).success();
    let _ = matchlock.run(&["prune"]).success();
    matchlock.assert_nothing_left();
}

#[test]
fn twenty_sandboxes_start_at_once_and_are_killed_at_once() {
    let matchlock = Matchlock::new();
    let arguments = ["run", "-d", "--memory", "128", "--image", BUSYBOX, "--", "sleep", "1000"];
    let starting: Vec<_> = (0..20).map(|_| matchlock.spawn(&arguments)).collect();
    let ids: Vec<String> =
        starting.into_iter().map(|run| run.wait().success().stdout_text().trim().to_owned()).collect();
    assert_eq!(matchlock.list().iter().filter(|row| row["status"] == "running").count(), 20);
    for id in &ids[..3] {
        let output = matchlock.run(&["exec", id, "hostname"]).success();
        assert_eq!(output.stdout_text().trim(), id);
    }
    let _ = matchlock.run(&["kill", "--all"]).success();
    let pruned = matchlock.run(&["prune"]).success().stdout_text();
    assert!(pruned.ends_with("Pruned 20 VMs\n"), "{pruned}");
    matchlock.assert_nothing_left();
}

/// The state directory on a file system of 2 MiB of which `free_kb` are free, in a mount namespace of
/// the script's own; it gets the binary as `$M` and frees the rest with `$FREE`.
fn on_a_full_disk(matchlock: &Matchlock, free_kb: u32, script: &str) -> std::process::Output {
    let home = matchlock.home();
    fs::create_dir_all(&home).expect("it is in a temporary directory");
    let template = matchlock.command(&["version"]);
    let mut command = Command::new("unshare");
    let script = format!(
        "set -e; mount -t tmpfs -o size=2048k,mode=700 tmpfs {home}; $M list >/dev/null
         used=$(df --output=used {home} | tail -1)
         head -c $(((2048 - used - {free_kb}) * 1024)) /dev/zero > {home}/filler
         FREE='rm {home}/filler'; set +e
         {script}",
        home = home.display()
    );
    command.args(["--mount", "sh", "-c", &script]).env("M", template.get_program());
    for (name, value) in template.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.output().expect("util-linux is there")
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_once_there_is_room() {
    let matchlock = Matchlock::new();
    let mut failures = 0;
    for free_kb in [0, 8, 16, 32, 48, 64, 96, 128, 256, 512] {
        let script = format!(
            "$M run -d --image {BUSYBOX} -- sleep 1000; code=$?; $FREE
             $M kill --all >&2; $M gc >&2 && $M prune >&2; $M list --json; ls {}/sandboxes; exit $code",
            matchlock.home().display()
        );
        let output = on_a_full_disk(&matchlock, free_kb, &script);
        let errors = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            failures += 1;
            assert!(errors.contains("hint: "), "{free_kb} KiB: {errors}");
        }
        assert!(!errors.contains("panicked"), "{free_kb} KiB: {errors}");
        let left = String::from_utf8_lossy(&output.stdout).into_owned();
        let left: Vec<&str> = left.lines().filter(|line| !line.starts_with("vm-")).collect();
        assert_eq!(left, ["[]"], "{free_kb} KiB: {errors}");
    }
    assert!(failures > 2, "the disk was never full");
    matchlock.assert_nothing_left();
}

/// Nor does it matter that what its owner in the background says of that cannot be written either.
#[test]
fn a_log_that_fills_the_disk_ends_nothing() {
    let matchlock = Matchlock::new();
    let script = format!(
        "id=$($M run -d --image {BUSYBOX} -- sh -c 'sleep 1; dd if=/dev/zero bs=64k count=64 | tr \\\\000 x; sleep 1000')
         for i in 1 2 3 4 5; do sleep 1; dd if=/dev/zero bs=64k of={home}/more 2>/dev/null; done
         $M list --json; $FREE; rm {home}/more; $M exec $id echo well; $M kill $id >&2",
        home = matchlock.home().display()
    );
    let output = on_a_full_disk(&matchlock, 1024, &script);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("\"running\"") && said.ends_with("well\n"), "{said}{failed}");
    matchlock.assert_nothing_left();
}

/// A command that takes this for the time: `+400d`, `-400d`.
fn at_another_time(matchlock: &Matchlock, offset: &str, arguments: &[&str]) -> std::process::Output {
    let libraries = fs::read_dir("/usr/lib").expect("it is a directory");
    let library = libraries
        .flatten()
        .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .expect("libfaketime is needed: apt install faketime");
    let mut command = matchlock.command(arguments);
    command.env("LD_PRELOAD", library).env("FAKETIME", offset).output().expect("the binary starts")
}

#[test]
fn clocks_that_jump_confuse_nobody() {
    let matchlock = Matchlock::new();
    let run = ["run", "-d", "--image", BUSYBOX, "--", "sleep", "1000"];
    let output = at_another_time(&matchlock, "+400d", &run);
    let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let year = |id: &str| -> u32 {
        let output = matchlock.run(&["exec", id, "--", "date", "+%Y%m%d"]).success();
        output.stdout_text().trim().parse().unwrap()
    };
    let then = year(&id);
    for offset in ["+0d", "+4000d", "-4000d"] {
        let output = at_another_time(&matchlock, offset, &["list"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(" ago") && text.contains("running"), "{offset}: {text}");
    }
    // Back to now: as long as it was told to wait, and no longer.
    let started = Instant::now();
    let _ = matchlock.run(&["stop", "--timeout", "2s", &id]).success();
    assert!(started.elapsed() < Duration::from_secs(60));
    let _ = matchlock.run(&["start", &id]).success();
    assert!(year(&id) < then, "the guest has the time of its host");
    let history = matchlock.inspect(&id)["history"].clone();
    let phases: Vec<_> = history.as_array().unwrap().iter().map(|entry| entry["to"].clone()).collect();
    let life = ["creating", "created", "starting", "running", "stopping", "stopped", "starting", "running"];
    assert_eq!(phases, life, "the order is that of events, not of times");
    assert!(at_another_time(&matchlock, "-4000d", &["kill", &id]).status.success());
    let _ = matchlock.run(&["rm", &id]).success();
    matchlock.assert_nothing_left();
}
