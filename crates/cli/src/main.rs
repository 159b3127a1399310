//! The `matchlock` command. What lives here is the error policy and nothing else: a command gives
//! an exit code or a [`failure::Failure`], and this file makes one process exit of it.

#![deny(clippy::print_stderr, clippy::print_stdout)] // They panic where nobody can read them.

mod args;
mod backend;
mod command;
mod environment;
mod failure;
mod host;
mod hosts;
mod network;
mod output;
mod owner;
mod progress;
mod sandboxes;
mod session;
mod signals;
mod terminal;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    host::forbid_core_dumps();
    host::make_room_for_descriptors();
    sys::signal::await_children().expect("SIGCHLD is a signal");
    let args = args::Args::parse();
    host::start_log();
    let code = match command::dispatch(args.command) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    };
    ExitCode::from(code)
}
