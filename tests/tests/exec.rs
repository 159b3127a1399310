//! `matchlock exec`: commands in a sandbox that another process owns.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use harness::Matchlock;
use harness::cache::BUSYBOX;
use rustix::process::Signal;

/// A sandbox that does nothing.
fn idle(matchlock: &Matchlock, flags: &[&str]) -> String {
    matchlock.detached(&[flags, &["--image", BUSYBOX, "--", "sleep", "1000"]].concat())
}

/// Waits until the file that a command removes at its end is gone.
fn wait_until_gone(matchlock: &Matchlock, id: &str, file: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while matchlock.run(&["exec", id, "--", "test", "-e", file]).code == Some(0) {
        assert!(Instant::now() < deadline, "{file} is still there");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn streams_exit_codes_and_settings_are_the_commands_own() {
    let matchlock = Matchlock::new();
    let id = idle(&matchlock, &["-e", "A=1", "-e", "B=1", "-w", "/srv"]);
    let exec = |flags: &[&str], line: &str| {
        matchlock.run(&[&["exec"], flags, &[&id, "--", "sh", "-c", line]].concat())
    };
    let output = exec(&["-e", "B=2", "-e", "C=3"], "echo $A$B$C; pwd; echo err >&2; exit 7");
    assert_eq!((output.code, output.stdout_text().as_str()), (Some(7), "123\n/srv\n"));
    assert_eq!(output.stderr_text(), "err\n");
    assert_eq!(exec(&["-u", "user", "-w", "/tmp"], "id -un; pwd").success().stdout_text(), "user\n/tmp\n");
    assert_eq!(exec(&[], "kill -TERM $$").code, Some(143));
    assert_eq!(exec(&["-w", "/nowhere"], "true").code, Some(125), "only a sandbox's own directory is made");
    assert_eq!(exec(&["-u", "nobody-here"], "true").code, Some(125));
    assert_eq!(matchlock.run(&["exec", &id, "--", "/etc/passwd"]).code, Some(126));
    let missing = matchlock.run(&["exec", &id, "no-such-command"]);
    assert_eq!(missing.code, Some(127));
    assert!(missing.stderr_text().contains("no-such-command"), "{}", missing.stderr_text());
    assert_eq!(matchlock.run(&["exec", &id]).code, Some(2), "no command");
    assert_eq!(matchlock.run(&["exec", "--no-such-flag", &id, "true"]).code, Some(2));
    // Arguments are passed as they are, never read by a shell.
    let output = matchlock.run(&["exec", &id, "--", "echo", "$A;", "a  b", "'"]).success();
    assert_eq!(output.stdout_text(), "$A; a  b '\n");
}

#[test]
fn bytes_of_any_kind_and_number_go_both_ways() {
    let matchlock = Matchlock::new();
    let id = idle(&matchlock, &[]);
    let input: Vec<u8> =
        (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let output = matchlock.run_with_input(&["exec", "-i", &id, "--", "cat"], input.clone()).success();
    assert!(output.stdout == input, "{} bytes came back", output.stdout.len());
    let output = matchlock.run_with_input(&["exec", &id, "--", "cat"], "not passed on").success();
    assert_eq!(output.stdout_text(), "", "without -i there is no input");
    // Who reads only the first of it does not wait for the rest.
    let output = matchlock.run_with_input(&["exec", "-i", &id, "--", "head", "-c", "10"], input).success();
    assert_eq!(output.stdout.len(), 10);
}

#[test]
fn many_commands_run_at_once_and_do_not_mix() {
    let matchlock = Matchlock::new();
    let id = idle(&matchlock, &[]);
    let running: Vec<_> = (0..12)
        .map(|number| {
            let line = format!("for i in 1 2 3 4 5; do echo {number}; sleep 0.1; done; exit {number}");
            (number, matchlock.spawn(&["exec", &id, "--", "sh", "-c", &line]))
        })
        .collect();
    for (number, running) in running {
        let output = running.wait();
        assert_eq!((output.code, output.stdout_text()), (Some(number), format!("{number}\n").repeat(5)));
    }
    assert_eq!(matchlock.list()[0]["status"], "running");
}

#[test]
fn signals_are_passed_on() {
    let matchlock = Matchlock::new();
    let id = idle(&matchlock, &[]);
    let line = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.1; done";
    let running = matchlock.spawn(&["exec", &id, "--", "sh", "-c", line]);
    running.wait_for_stdout("ready");
    running.signal(Signal::INT);
    let output = running.wait();
    assert_eq!((output.code, output.stdout_text().as_str()), (Some(3), "ready\ncaught\n"));
    let _ = matchlock.run(&["exec", &id, "true"]).success();
}

#[test]
fn a_command_ends_when_its_client_is_killed_and_nothing_else_does() {
    let matchlock = Matchlock::new();
    let id = idle(&matchlock, &[]);
    let line = "trap 'rm /tmp/alive; exit' TERM; touch /tmp/alive; echo ready; while :; do sleep 0.1; done";
    for _ in 0..2 {
        let running = matchlock.spawn(&["exec", &id, "--", "sh", "-c", line]);
        let other = matchlock.spawn(&["exec", &id, "--", "sh", "-c", "echo on; sleep 3; echo off"]);
        running.wait_for_stdout("ready");
        other.wait_for_stdout("on");
        running.signal(Signal::KILL);
        assert_eq!(running.wait().code, None);
        wait_until_gone(&matchlock, &id, "/tmp/alive");
        assert_eq!(other.wait().success().stdout_text(), "on\noff\n");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command() {
    let matchlock = Matchlock::new();
    let id = idle(&matchlock, &[]);
    let mut plain = matchlock.command(&["exec", &id, "--", "sh", "-c", "yes; echo $? >&2"]);
    let mut child = plain.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut some = [0; 10];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut some).unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
    let _ = matchlock.run(&["exec", &id, "true"]).success();
}

#[test]
fn the_end_of_the_sandbox_is_the_end_of_its_commands() {
    let matchlock = Matchlock::new();
    let id = idle(&matchlock, &[]);
    let running = matchlock.spawn(&["exec", &id, "--", "sh", "-c", "echo ready; sleep 1000"]);
    running.wait_for_stdout("ready");
    let _ = matchlock.run(&["kill", &id]).success();
    let output = running.wait();
    // Its disk outlives it, so the guest ends what runs before it unmounts that.
    assert!(matches!(output.code, Some(125 | 137 | 143)), "{output:?}");
}

#[test]
fn only_its_own_user_can_reach_a_sandbox() {
    let matchlock = Matchlock::new();
    let id = idle(&matchlock, &[]);
    let directory = matchlock.home().join("sandboxes").join(&id);
    for path in [matchlock.home(), directory.clone()] {
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
    // Even where the directories let them through, others are not served.
    assert!(rustix::process::geteuid().is_root(), "this test becomes another user: run it as root");
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    };
    let socket = directory.join("rpc.sock");
    let everything = [matchlock.home(), matchlock.home().join("sandboxes"), directory, socket.clone()];
    everything.iter().for_each(|path| open(path));
    let parent = matchlock.home().parent().unwrap().to_owned();
    open(&parent);
    let script = format!(
        "use IO::Socket::UNIX; $SIG{{PIPE}} = 'IGNORE'; my $s = IO::Socket::UNIX->new('{}') or die $!; \
         print $s '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}}', qq(\\n); $s->flush; \
         print defined(<$s>) ? 'answered' : 'hung up';",
        socket.display()
    );
    let mut stranger = std::process::Command::new("perl");
    let output = stranger.args(["-e", &script]).uid(65534).gid(65534).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((said.as_str(), failed.as_str()), ("hung up", ""), "it is connected, and gets no answer");
    let _ = matchlock.run(&["exec", &id, "true"]).success();
}

/// As an SDK's client does it: over the socket, in lines of JSON.
#[test]
fn a_cancelled_command_gets_sigterm_with_all_its_descendants() {
    let matchlock = Matchlock::new();
    let id = idle(&matchlock, &[]);
    let socket = matchlock.home().join("sandboxes").join(&id).join("rpc.sock");
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let child = "trap 'touch /child-was-told; exit' TERM; touch /ready; while :; do sleep 0.1; done";
    let command = format!("setsid sh -c \"{child}\" & wait; wait");
    let request = serde_json::json!({
        "jsonrpc": "2.0", "id": 1, "method": "exec_stream", "params": { "command": command }
    });
    writeln!(stream, "{request}").unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while matchlock.run(&["exec", &id, "--", "test", "-e", "/ready"]).code != Some(0) {
        assert!(Instant::now() < deadline);
    }
    writeln!(stream, r#"{{"jsonrpc":"2.0","id":2,"method":"cancel","params":{{"id":1}}}}"#).unwrap();
    let mut answers: Vec<serde_json::Value> = BufReader::new(&stream)
        .lines()
        .take(2)
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    answers.sort_by_key(|answer| answer["id"].as_i64());
    assert_eq!(answers[0]["error"]["code"], -32003, "{answers:?}");
    assert_eq!(answers[1]["result"], serde_json::json!({ "cancelled": true }));
    let _ = matchlock.run(&["exec", &id, "--", "test", "-e", "/child-was-told"]).success();
}
