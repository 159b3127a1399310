//! `matchlock kill`.

use std::time::Duration;

use futures_util::future::join_all;
use rpc::EndError;

use crate::failure::Outcome;
use crate::progress::patiently;
use crate::{output, sandboxes, signals};

/// End sandboxes at once.
///
/// One that is kept (run with --rm=false or -d) can be started again, or removed with
/// `matchlock rm`; any other is gone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock kill vm-1a2b3c4d
  matchlock kill --all")]
pub(crate) struct Args {
    /// IDs, beginnings of IDs, or names.
    #[arg(value_name = "ID")]
    sandboxes: Vec<String>,
    /// All that run.
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    end(&args.sandboxes, args.all, None, "Killed")
}

/// Ends sandboxes, many at a time, and says so.
pub(crate) fn end(named: &[String], all: bool, grace: Option<Duration>, done: &str) -> Outcome {
    let site = sandboxes::site()?;
    let mut records = sandboxes::chosen(&site, named, all)?;
    if all {
        records.retain(|record| site.status(record).is_alive());
    }
    signals::interruptible(async {
        let ending = records.iter().map(|record| rpc::end(&site, record.id, grace));
        let ended = patiently("waiting for the end".to_owned(), join_all(ending)).await;
        sandboxes::each(records.iter().zip(ended).collect(), |(record, ended)| {
            match ended {
                // It has ended by itself since it was found.
                Err(EndError::NotRunning { .. }) if all => return Ok(()),
                ended => ended?,
            }
            output::line(&format!("{done} {}", record.id))?;
            Ok(())
        })?;
        Ok(0)
    })
}
