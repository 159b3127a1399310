//! `matchlock version`.

use serde::Serialize;

use crate::failure::Outcome;
use crate::output;

/// The version as `--version` prints it behind the program's name.
pub(crate) const LINE: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit: ",
    env!("MATCHLOCK_COMMIT"),
    ", built: ",
    env!("MATCHLOCK_BUILT"),
    ")"
);

/// Print the version.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock version
  matchlock version --json")]
pub(crate) struct Args {
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    commit: &'static str,
    built: &'static str,
}

pub(crate) fn run(args: &Args) -> Outcome {
    if args.json {
        output::json(&Version {
            version: env!("CARGO_PKG_VERSION"),
            commit: env!("MATCHLOCK_COMMIT"),
            built: env!("MATCHLOCK_BUILT"),
        })
    } else {
        output::line(&format!("matchlock {LINE}"))
    }
}
