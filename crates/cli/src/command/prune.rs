//! `matchlock prune`.

use crate::failure::Outcome;
use crate::{output, sandboxes};

/// Remove all sandboxes that do not run, with their disks.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  matchlock prune

Images are left alone: see `matchlock image gc`.")]
pub(crate) struct Args {}

pub(crate) fn run(_: &Args) -> Outcome {
    let site = sandboxes::site()?;
    let mut records = site.state.list()?;
    records.retain(|record| !site.status(record).is_alive());
    let mut pruned = 0;
    let outcome = sandboxes::each(records, |record| {
        if sandboxes::unless_gone(site.remove(record.id))?.is_some() {
            pruned += 1;
            output::line(&format!("Pruned {}", record.id))?;
        }
        Ok(())
    });
    output::line(&format!("Pruned {pruned} VMs"))?;
    outcome.map(|()| 0)
}
