//! `matchlock prune`.

use serde_json::json;

use crate::failure::Outcome;
use crate::{output, sandboxes};

/// Remove all sandboxes that do not run, with their disks.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock prune
  matchlock prune --json

Images are left alone: see `matchlock image gc`.")]
pub(crate) struct Args {
    /// Print a JSON object: {"pruned": [ID, …]}.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let site = sandboxes::site()?;
    let mut records = site.state.list()?;
    records.retain(|record| !site.status(record).is_alive());
    let mut pruned = Vec::new();
    let outcome = sandboxes::each(records, |record| {
        if sandboxes::unless_changed(site.remove(record.id))?.is_some() {
            pruned.push(record.id);
            if !args.json {
                output::line(&format!("Pruned {}", record.id))?;
            }
        }
        Ok(())
    });
    if args.json {
        output::json(&json!({ "pruned": pruned }))?;
    } else {
        output::line(&format!("Pruned {} VMs", pruned.len()))?;
    }
    outcome.map(|()| 0)
}
