//! The user's terminal: raw mode while a command in the sandbox has one, and its size.

use std::io;

use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use sandbox::agent::WindowSize;

use crate::failure::Failure;

/// A terminal of the usual size, where ours cannot be asked.
const DEFAULT_SIZE: WindowSize = WindowSize { rows: 24, columns: 80 };

/// The size of the terminal on standard output or input.
pub(crate) fn size() -> WindowSize {
    let asked = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin()));
    match asked {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            WindowSize { rows: size.ws_row, columns: size.ws_col }
        }
        _ => DEFAULT_SIZE,
    }
}

/// Whether standard input is a terminal.
pub(crate) fn is_terminal() -> bool {
    isatty(stdin())
}

/// Refuses to connect a terminal (-t) and standard input (-i) where that is none.
pub(crate) fn check(terminal: bool, stdin: bool) -> Result<(), Failure> {
    if terminal && stdin && !is_terminal() {
        return Err(Failure::usage("-t with -i needs a terminal on standard input; leave out -t"));
    }
    Ok(())
}

/// Raw mode on standard input until dropped: keys, Ctrl-C among them, go to the sandbox.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may have gone away; then there is nothing to restore.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
    }
}
