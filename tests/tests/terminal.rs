//! `run -it` and `exec -it`: a terminal of the command's own, joined to the user's.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::Matchlock;
use harness::cache::BUSYBOX;
use rexpect::process::WaitStatus;
use rexpect::session::{PtySession, spawn_command};
use rustix::fs::OFlags;
use rustix::process::{Signal, kill_process};
use rustix::pty::ptsname;
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// How long a step may take, milliseconds.
const LIMIT: u64 = 60_000;

fn start(matchlock: &Matchlock, arguments: &[&str]) -> PtySession {
    on_a_terminal(matchlock, &[&["run", "--image", BUSYBOX, "-it"], arguments].concat())
}

fn on_a_terminal(matchlock: &Matchlock, arguments: &[&str]) -> PtySession {
    let plain = matchlock.command(arguments);
    // The pseudo-terminal must not be overridden by the harness's empty standard input.
    let mut command = Command::new(plain.get_program());
    command.args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    spawn_command(command, Some(LIMIT)).expect("the binary starts")
}

fn resize(session: &PtySession, rows: u16, columns: u16) {
    let terminal = session.process().get_file_handle().expect("the terminal is open");
    tcsetwinsize(&terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
        .expect("terminals have a size");
}

#[test]
fn a_shell_has_a_terminal_of_our_size_that_follows_it() {
    let matchlock = Matchlock::new();
    let mut session = start(
        &matchlock,
        &["--", "sh", "-c", "echo ready; read x; tty; stty size; read x; stty size; exit 5"],
    );
    session.exp_string("ready").unwrap();
    resize(&session, 40, 100);
    std::thread::sleep(Duration::from_millis(500));
    session.send_line("").unwrap();
    session.exp_string("/dev/pts/").unwrap();
    session.exp_string("40 100").unwrap();
    resize(&session, 50, 120);
    std::thread::sleep(Duration::from_millis(500));
    session.send_line("").unwrap();
    session.exp_string("50 120").unwrap();
    session.exp_eof().unwrap();
    let status = session.process().wait().unwrap();
    assert!(format!("{status:?}").contains("5"), "{status:?}");
    matchlock.assert_nothing_left();
}

#[test]
fn ctrl_c_is_a_key_that_interrupts_the_foreground_only() {
    let matchlock = Matchlock::new();
    let mut session = start(&matchlock, &["--", "sh"]);
    session.send_line("echo $((20+22))").unwrap();
    session.exp_string("42").unwrap();
    session.send_line("sleep 1000").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    session.send_control('c').unwrap();
    session.send_line("echo $((30+33))").unwrap();
    session.exp_string("63").unwrap();
    session.send_line("exit").unwrap();
    session.exp_eof().unwrap();
    matchlock.assert_nothing_left();
}

/// The terminal as the command has it, which stays when that has ended.
fn terminal(session: &PtySession) -> File {
    let ours = session.process().get_file_handle().expect("the terminal is open");
    let path = ptsname(&ours, Vec::new()).expect("it has another end").into_string();
    let path = path.expect("its name is a number");
    // Not as a controlling terminal of ours.
    let flags = OFlags::NOCTTY.bits().cast_signed();
    File::options().read(true).custom_flags(flags).open(path).expect("the terminal is there")
}

/// Whether Ctrl-C is a signal and lines are edited, as in a terminal that nobody uses.
fn is_restored(terminal: &File) -> bool {
    let modes = tcgetattr(terminal).expect("it is a terminal").local_modes;
    modes.contains(LocalModes::ISIG | LocalModes::ICANON)
}

/// How a client ends whose terminal stays open.
fn ended(session: &PtySession) -> String {
    let deadline = Instant::now() + Duration::from_millis(LIMIT);
    loop {
        match session.process().status() {
            Some(WaitStatus::StillAlive) => {}
            status => return format!("{status:?}"),
        }
        assert!(Instant::now() < deadline, "the client does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn idle(matchlock: &Matchlock) -> String {
    matchlock.detached(&["--image", BUSYBOX, "--", "sleep", "1000"])
}

#[test]
fn a_shell_by_exec_has_a_terminal_too_and_takes_its_flags_behind_the_id() {
    let matchlock = Matchlock::new();
    let id = idle(&matchlock);
    let mut session = on_a_terminal(&matchlock, &["exec", &id, "-it", "sh"]);
    session.exp_string("#").unwrap();
    let terminal = terminal(&session);
    assert!(!is_restored(&terminal), "keys are the command's");
    resize(&session, 40, 100);
    session.send_line("sleep 0.5; stty size").unwrap();
    session.exp_string("40 100").unwrap();
    session.send_line("sleep 1000").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    session.send_control('c').unwrap();
    session.send_line("exit $((4+5))").unwrap();
    assert!(ended(&session).contains(", 9)"), "its exit code is ours");
    assert!(is_restored(&terminal));
}

#[test]
fn a_terminal_is_restored_when_the_sandbox_or_its_owner_is_killed() {
    let matchlock = Matchlock::new();
    let id = idle(&matchlock);
    let shell = || {
        let mut session = on_a_terminal(&matchlock, &["exec", "-it", &id, "sh"]);
        session.exp_string("#").unwrap();
        // Nothing that the sandbox's end could ask nicely.
        session.send_line("trap '' HUP INT TERM; echo $((20+22))").unwrap();
        session.exp_string("42").unwrap();
        let terminal = terminal(&session);
        assert!(!is_restored(&terminal));
        (session, terminal)
    };
    let (session, terminal) = shell();
    let _ = matchlock.run(&["kill", &id]).success();
    let _ = ended(&session);
    assert!(is_restored(&terminal));
    let _ = matchlock.run(&["start", &id]).success();
    let (mut session, terminal) = shell();
    kill_process(matchlock.owner(&id), Signal::KILL).unwrap();
    session.exp_string("matchlock list").unwrap();
    assert!(ended(&session).contains(", 125)"), "the owner is gone");
    assert!(is_restored(&terminal));
}

#[test]
fn ctrl_c_stays_a_signal_where_keys_are_not_passed_on() {
    let matchlock = Matchlock::new();
    let id = idle(&matchlock);
    let mut session =
        on_a_terminal(&matchlock, &["exec", "-t", &id, "--", "sh", "-c", "echo on; exec sleep 1000"]);
    session.exp_string("on").unwrap();
    let terminal = terminal(&session);
    assert!(is_restored(&terminal));
    session.send_control('c').unwrap();
    assert!(ended(&session).contains(", 130)"), "the signal's number is our exit code");
}

#[test]
fn a_command_that_ignores_it_does_not_outlive_its_terminal() {
    let matchlock = Matchlock::new();
    let id = idle(&matchlock);
    let line = "trap '' HUP; echo on; while :; do sleep 1; done";
    let running = matchlock.spawn(&["exec", "-t", &id, "--", "sh", "-c", line]);
    running.wait_for_stdout("on");
    running.signal(Signal::HUP);
    assert_eq!(running.wait().code, Some(129));
    let _ = matchlock.run(&["exec", &id, "true"]).success();
}
