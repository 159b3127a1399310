//! Ctrl-C, SIGTERM and kill -9 in every phase of a run: the right exit code, and nothing left.

use std::io::Read as _;
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use harness::cache::{self, BUSYBOX};
use harness::{Matchlock, Running};
use rustix::process::{Pid, Signal, kill_process};

fn start(matchlock: &Matchlock, line: &str) -> Running {
    matchlock.spawn(&["run", "--image", BUSYBOX, "--", "sh", "-c", line])
}

#[test]
fn ctrl_c_reaches_the_command() {
    let matchlock = Matchlock::new();
    let running =
        start(&matchlock, "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.1; done");
    running.wait_for_stdout("ready");
    running.signal(Signal::INT);
    let output = running.wait();
    assert_eq!((output.code, output.stdout_text().as_str()), (Some(3), "ready\ncaught\n"));
    matchlock.assert_nothing_left();
}

#[test]
fn a_command_that_dies_of_the_signal_gives_its_number() {
    let matchlock = Matchlock::new();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let running = start(&matchlock, "echo ready; exec sleep 100");
        running.wait_for_stdout("ready");
        running.signal(signal);
        assert_eq!(running.wait().code, Some(code));
    }
    matchlock.assert_nothing_left();
}

#[test]
fn the_third_ctrl_c_ends_a_command_that_ignores_it() {
    let matchlock = Matchlock::new();
    let running = start(&matchlock, "trap '' INT; echo ready; while :; do sleep 0.1; done");
    running.wait_for_stdout("ready");
    for _ in 0..3 {
        running.signal(Signal::INT);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(running.wait().code, Some(130));
    matchlock.assert_nothing_left();
}

/// The guest takes no signals then, so we must not wait for it to.
#[test]
fn a_vm_that_hangs_can_be_left_and_its_time_runs_out() {
    let matchlock = Matchlock::new();
    let hang = |flags: &[&str]| {
        let command = ["--image", BUSYBOX, "--", "sh", "-c", "echo ready; exec sleep 100"];
        let running = matchlock.spawn(&[&["run"], flags, &command].concat());
        running.wait_for_stdout("ready");
        let id = matchlock.list()[0]["id"].as_str().expect("an ID is text").to_owned();
        kill_process(matchlock.vmm(&id), Signal::STOP).expect("it runs");
        running
    };
    let running = hang(&[]);
    for _ in 0..3 {
        running.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(running.wait().code, Some(143));
    matchlock.assert_nothing_left();
    assert_eq!(hang(&["--timeout", "3"]).wait().code, Some(124));
    matchlock.assert_nothing_left();
}

/// Signals arrive at all moments of the first two seconds: while the image is opened, the VM
/// started, the kernel boots, the root is mounted, the command runs.
#[test]
fn ctrl_c_at_any_moment_leaves_nothing() {
    let matchlock = Matchlock::new();
    for delay in (0..20).map(|step| Duration::from_millis(step * 100)) {
        let running = start(&matchlock, "exec sleep 100");
        std::thread::sleep(delay);
        running.signal(Signal::INT);
        let code = running.wait().code;
        // Before the handler is in place the signal itself ends us, which has no exit code.
        assert!(matches!(code, Some(130) | None), "{code:?} after {delay:?}");
    }
    matchlock.assert_nothing_left();
}

/// Nor does it matter which of the two streams it is.
#[test]
fn a_reader_that_does_not_read_keeps_nobody_from_ending_it() {
    let matchlock = Matchlock::new();
    // Reads the first byte and no more; the rest of what is given is not to be dropped.
    let endless = |flags: &[&str], line: &str| {
        let command = ["--image", BUSYBOX, "--", "sh", "-c", line];
        let mut command = matchlock.command(&[&["run"], flags, &command].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let mut first = [0];
        if line.contains(">&2") { stderr.read_exact(&mut first) } else { stdout.read_exact(&mut first) }
            .unwrap();
        // Until the pipe is full.
        std::thread::sleep(Duration::from_secs(1));
        (child, stdout, stderr)
    };
    let ends = |(mut child, _stdout, _stderr): (Child, ChildStdout, ChildStderr)| {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = child.try_wait().expect("it is our child") {
                return status.code();
            }
            if Instant::now() > deadline {
                child.kill().expect("it is our child");
                panic!("it does not end");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    for line in ["yes", "yes >&2"] {
        assert_eq!(ends(endless(&["--timeout", "3"], line)), Some(124), "{line}");
        // The first is the command's, whose end is behind what it wrote.
        let running = endless(&[], line);
        for _ in 0..3 {
            kill_process(Pid::from_child(&running.0), Signal::INT).expect("it runs");
            std::thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(ends(running), Some(130), "{line}");
    }
    matchlock.assert_nothing_left();
}

#[test]
fn kill_9_at_any_moment_leaves_no_process_and_the_next_run_sweeps_the_rest() {
    let matchlock = Matchlock::new();
    for delay in (0..10).map(|step| Duration::from_millis(step * 200)) {
        let running = start(&matchlock, "exec sleep 100");
        std::thread::sleep(delay);
        running.signal(Signal::KILL);
        assert_eq!(running.wait().code, None);
    }
    let _ = matchlock.run(&["run", "--image", BUSYBOX, "--", "true"]).success();
    matchlock.assert_nothing_left();
}

#[test]
fn ctrl_c_during_an_import_or_a_pull_leaves_nothing() {
    let matchlock = Matchlock::without_images();
    let tar = std::fs::read(cache::tar(BUSYBOX)).unwrap();
    let mut import = matchlock.spawn(&["image", "import", "half"]);
    import.input(&tar[..tar.len() / 2]);
    std::thread::sleep(Duration::from_millis(500));
    import.signal(Signal::INT);
    assert_eq!(import.wait().code, Some(130));
    // A registry that takes the connection and never answers.
    let registry = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let reference = format!("{}/silent/app:1", registry.local_addr().unwrap());
    let pull = matchlock.spawn(&["pull", &reference]);
    let _connection = registry.accept().unwrap();
    pull.signal(Signal::INT);
    assert_eq!(pull.wait().code, Some(130));
    let images = matchlock.run(&["image", "ls", "--json"]).success();
    assert_eq!(images.stdout_text().trim(), "[]");
    matchlock.assert_nothing_left();
}
