//! `matchlock inspect`.

use serde_json::{Value, json};

use super::get;
use crate::failure::Outcome;
use crate::{output, sandboxes};

/// Show a sandbox with its phase, what it has on this host, and its history, as JSON.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock inspect vm-1a2b3c4d")]
pub(crate) struct Args {
    /// ID, the beginning of one, or name.
    #[arg(value_name = "ID")]
    sandbox: String,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let site = sandboxes::site()?;
    let record = sandboxes::find(&site, &args.sandbox)?;
    let resources: Vec<_> = site.state.resources(record.id)?.into_iter().map(|held| held.resource).collect();
    let history = site.state.history(record.id)?;
    let history: Vec<Value> = history
        .iter()
        .map(|entry| {
            let at = output::rfc3339(entry.at);
            json!({ "at": at, "from": entry.from, "to": entry.to, "note": entry.note })
        })
        .collect();
    let cleanup: Vec<&Value> = history.iter().filter(|entry| is_cleanup(entry)).collect();
    output::json(&json!({
        "vm": get::view(&site, &record)?,
        "lifecycle": {
            "version": record.version,
            "vm_id": record.id,
            "backend": record.backend,
            "phase": record.phase,
            "updated_at": output::rfc3339(record.updated_at),
            "last_error": record.last_error,
            "resources": resources,
            "cleanup": cleanup,
        },
        "history": history,
    }))
}

/// Whether an entry of the history is about releasing what the sandbox had.
fn is_cleanup(entry: &Value) -> bool {
    matches!(entry["to"].as_str(), Some("stopped" | "stop_failed" | "cleaning" | "cleanup_failed"))
}
