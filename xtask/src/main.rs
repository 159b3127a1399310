//! The project's own chores, as `cargo xtask COMMAND`: one file per command.

mod bench;
mod check;
mod deny;
mod lab;
mod layers;
mod step;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's own chores.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures and writes docs/benchmarks.md; `make bench` prepares what it needs.
    Bench {
        /// Measure only this, and write nothing.
        only: Vec<bench::Part>,
    },
    /// Everything that can be said about the source without running it: format, clippy, layers, dependencies.
    Check,
    /// Dependencies: licences, bans, sources, and known vulnerabilities if their list can be fetched.
    Deny,
    /// Runs a command in a VM with a working KVM, and ends with its exit code: see scripts/lab.
    Lab {
        /// The words of scripts/lab.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        words: Vec<OsString>,
    },
    /// Each crate depends only on the crates below it.
    Layers,
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Bench { only } => bench::run(only),
        Command::Check => check::run(),
        Command::Deny => deny::run(),
        Command::Lab { words } => lab::run(words),
        Command::Layers => layers::run(),
    }
}
