//! PID 1 of every Matchlock VM: boots the sandbox's root and serves the host's requests.
//!
//! Three kinds of processes run this one program, none of which executes it again:
//!
//! ```text
//! agent (PID 1, threads)   talks to the host: boot, then one thread for each request, and one
//! │                        for all forwarded connections
//! └─ spawner               forked while there was one thread only; forks for every command
//!    └─ command's init     process 1 of the command's PID namespace: signals, zombies
//!       └─ the command     process 2
//! ```
//!
//! The agent's own files are those of the initramfs. A sandbox's root is put together at a place of
//! its own and entered by each command in a mount namespace of its own, so nothing that an image or
//! a command does can lead the agent astray.

mod agent;
mod boot;
mod command;
mod ending;
mod forward;
mod port;
mod spawner;
mod transport;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("matchlock-guest is the init of a Matchlock VM and does nothing elsewhere");
        return ExitCode::FAILURE;
    }
    match boot::run() {
        Ok(never) => match never {},
        Err(error) => ending::fail(&error),
    }
}
