//! `run -it`: a terminal of the command's own, joined to the user's.

use std::process::Command;

use harness::Matchlock;
use harness::cache::BUSYBOX;
use rexpect::session::{PtySession, spawn_command};
use rustix::termios::{Winsize, tcsetwinsize};

/// How long a step may take, milliseconds.
const LIMIT: u64 = 60_000;

fn start(matchlock: &Matchlock, arguments: &[&str]) -> PtySession {
    let all = [&["run", "--image", BUSYBOX, "-it"], arguments].concat();
    let plain = matchlock.command(&all);
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
    std::thread::sleep(std::time::Duration::from_millis(500));
    session.send_line("").unwrap();
    session.exp_string("/dev/pts/").unwrap();
    session.exp_string("40 100").unwrap();
    resize(&session, 50, 120);
    std::thread::sleep(std::time::Duration::from_millis(500));
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
    std::thread::sleep(std::time::Duration::from_millis(500));
    session.send_control('c').unwrap();
    session.send_line("echo $((30+33))").unwrap();
    session.exp_string("63").unwrap();
    session.send_line("exit").unwrap();
    session.exp_eof().unwrap();
    matchlock.assert_nothing_left();
}
