//! A command that runs, as the agent holds it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use proto::agent::WindowSize;
use rustix::net::{SendFlags, send};
use rustix::termios::{Winsize, tcgetpgrp, tcsetwinsize};

use crate::command::Order;

/// A running command.
#[derive(Debug)]
pub(super) struct Running {
    /// To its init.
    pub(super) control: OwnedFd,
    /// Our side of its terminal, if it has one.
    pub(super) terminal: Option<Arc<File>>,
}

impl Running {
    /// Sends a signal to the terminal's foreground group, or else the program's group.
    pub(super) fn signal(&self, number: i32) {
        let foreground = self.terminal.as_ref().and_then(|terminal| tcgetpgrp(terminal).ok());
        let sent = foreground.map(|group| sys::signal::send_to_group(group.as_raw_pid(), number));
        if !matches!(sent, Some(Ok(()))) {
            self.order(Order::Signal(number));
        }
    }

    /// Sets the size of its terminal; without one, nothing.
    pub(super) fn resize(&self, size: WindowSize) {
        if let Some(terminal) = &self.terminal {
            // The only error is a terminal that is gone, and so is who would look at it.
            let _ = tcsetwinsize(terminal, winsize(size));
        }
    }

    /// SIGTERM to all of it, and SIGKILL if it is still there after `grace`.
    pub(super) fn terminate(&self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.order(Order::Terminate { grace_ms });
    }

    fn order(&self, order: Order) {
        let message = postcard::to_stdvec(&order).expect("plain data can be encoded");
        // If its init is gone, so is the command; if its queue is full, signals are on their way.
        let _ = send(&self.control, &message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

/// The kernel's form of a window size.
pub(super) fn winsize(size: WindowSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}
