//! `matchlock list`.

use api::Status;
use serde::Serialize;

use crate::failure::Outcome;
use crate::{output, sandboxes};

/// List sandboxes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock list
  matchlock list --running --json

STATUS is one of starting, running, stopping, stopped, failed (its start or its removal failed;
`matchlock inspect` says why) and crashed (its owner was killed; `matchlock gc` tidies up).")]
pub(crate) struct Args {
    /// Only those that run.
    #[arg(long)]
    running: bool,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    id: String,
    name: Option<String>,
    status: Status,
    image: String,
    created_at: String,
    #[serde(skip)]
    age: String,
    pid: Option<u32>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let site = sandboxes::site()?;
    let records = site.state.list()?;
    let rows = records.into_iter().map(|record| {
        let status = site.status(&record);
        Row {
            id: record.id.to_string(),
            name: record.name.map(|name| name.to_string()),
            status,
            image: record.image,
            created_at: output::rfc3339(record.created_at),
            age: output::age(u64::try_from(record.created_at / 1000).unwrap_or(0)),
            pid: record.owner_pid.filter(|_| status.is_alive()),
        }
    });
    let rows = rows.filter(|row| !args.running || row.status == Status::Running);
    if args.json {
        return output::json(&rows.collect::<Vec<_>>());
    }
    let rows: Vec<Row> = rows.collect();
    // Programs take the first column and the last; names come between, where there are any.
    if rows.iter().all(|row| row.name.is_none()) {
        return output::table(["ID", "STATUS", "IMAGE", "CREATED", "PID"], rows.iter().map(Row::cells));
    }
    let named = rows.iter().map(|row| {
        let [id, status, image, created, pid] = row.cells();
        [id, status, image, created, row.name.clone().unwrap_or_default(), pid]
    });
    output::table(["ID", "STATUS", "IMAGE", "CREATED", "NAME", "PID"], named)
}

impl Row {
    fn cells(&self) -> [String; 5] {
        [
            self.id.clone(),
            self.status.to_string(),
            self.image.clone(),
            self.age.clone(),
            self.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        ]
    }
}
