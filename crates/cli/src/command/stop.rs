//! `matchlock stop`.

use std::time::Duration;

use super::{kill, run};
use crate::failure::Outcome;

/// Stop sandboxes: end what runs in them, sync their disks, power off.
///
/// One that is kept (run with --rm=false or -d) keeps its disk and can be started again; any other
/// is gone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock stop vm-1a2b3c4d
  matchlock stop --timeout 30s web db")]
pub(crate) struct Args {
    /// IDs, beginnings of IDs, or names.
    #[arg(value_name = "ID")]
    sandboxes: Vec<String>,
    /// How long what runs may take to end (30s, 500ms) before it is killed.
    #[arg(short, long, value_name = "DURATION", default_value = "10s", value_parser = run::duration)]
    timeout: Duration,
}

pub(crate) fn run(args: &Args) -> Outcome {
    kill::end(&args.sandboxes, false, Some(args.timeout), "Stopped")
}
