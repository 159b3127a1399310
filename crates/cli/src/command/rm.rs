//! `matchlock rm`.

use crate::failure::Outcome;
use crate::{output, sandboxes};

/// Remove sandboxes that do not run, with their disks.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock rm vm-1a2b3c4d
  matchlock rm --stopped")]
pub(crate) struct Args {
    /// IDs, beginnings of IDs, or names.
    #[arg(value_name = "ID")]
    sandboxes: Vec<String>,
    /// All that do not run.
    #[arg(long)]
    stopped: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let site = sandboxes::site()?;
    let mut records = sandboxes::chosen(&site, &args.sandboxes, args.stopped)?;
    if args.stopped {
        records.retain(|record| !site.status(record).is_alive());
    }
    sandboxes::each(records, |record| {
        let removed = site.remove(record.id);
        if args.stopped {
            if sandboxes::unless_changed(removed)?.is_none() {
                return Ok(());
            }
        } else {
            removed?;
        }
        output::line(&format!("Removed {}", record.id))?;
        Ok(())
    })?;
    Ok(0)
}
