//! `matchlock policy`: what a sandbox may reach, explained.

mod check;
mod log;
mod url;

use clap::Subcommand;

use crate::failure::Outcome;

/// Explain what a sandbox may reach: before it runs, and afterwards.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock policy check --allow-host '*.example.com' https://api.example.com/v1
  matchlock policy log vm-1a2b3c4d      # what it was refused")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Check(Box<check::Args>),
    Log(log::Args),
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.action {
        Action::Check(args) => check::run(args),
        Action::Log(args) => log::run(args),
    }
}
