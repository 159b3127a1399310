//! `matchlock gc`.

use api::SandboxId;
use sandbox::Site;
use sandbox::home::Home;
use sandbox::rebuild::rebuild;
use sandbox::reconcile;
use sandbox::state::Record;
use serde::Serialize;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::{host, output, sandboxes, signals};

/// Release what sandboxes whose owner was killed have left on this host.
///
/// Sandboxes that run are left alone. One that is kept keeps its disk, and can be started again or
/// removed; of any other nothing stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock gc
  matchlock gc vm-1a2b3c4d --force-running
  matchlock gc --json

Images are another matter: see `matchlock image gc`.")]
pub(crate) struct Args {
    /// Only this one: ID, the beginning of one, or name.
    #[arg(value_name = "ID")]
    sandbox: Option<String>,
    /// Those that run, too: they are killed.
    #[arg(long)]
    force_running: bool,
    /// Begin a new database in place of a damaged one, which is put aside. Sandboxes that are
    /// kept are entered again.
    #[arg(long, conflicts_with_all = ["sandbox", "force_running"])]
    rebuild_state: bool,
    /// Print a JSON object: {"reconciled": [{"id": …, "outcome": …, "resources": […]}]}.
    #[arg(long)]
    json: bool,
}

/// What was done about one sandbox.
#[derive(Serialize)]
struct Reconciled {
    id: SandboxId,
    outcome: Done,
    /// What was released, in words.
    resources: Vec<String>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Done {
    /// Nothing, it runs.
    Running,
    Cleaned,
    Killed,
    /// It was not on record.
    Removed,
    EnteredAgain,
}

impl Reconciled {
    fn new(id: SandboxId, outcome: Done) -> Self {
        Self { id, outcome, resources: Vec::new() }
    }

    fn line(&self) -> String {
        let Self { id, outcome, resources } = self;
        match outcome {
            Done::Running => format!("{id}: skipped (running)"),
            Done::Cleaned if resources.is_empty() => format!("{id}: no resources to clean"),
            Done::Cleaned => format!("{id}: cleaned {}", resources.join(", ")),
            Done::Killed => format!("{id}: killed"),
            Done::Removed => format!("{id}: removed, it was not on record"),
            Done::EnteredAgain => format!("{id}: entered again"),
        }
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut report = Report { json: args.json, reconciled: Vec::new() };
    if args.rebuild_state {
        rebuild_state(&mut report)?;
        return report.finish();
    }
    let site = sandboxes::site()?;
    if let Some(named) = &args.sandbox {
        report.add(one(&site, &sandboxes::find(&site, named)?, args.force_running)?)?;
        return report.finish();
    }
    sandboxes::each(site.state.list()?, |record| {
        match sandboxes::unless_changed(one(&site, &record, args.force_running))? {
            Some(reconciled) => report.add(reconciled),
            None => Ok(()),
        }
    })?;
    for id in site.remove_unknown()? {
        report.add(Reconciled::new(id, Done::Removed))?;
    }
    report.finish()
}

/// What was done, told line by line or all at once.
struct Report {
    json: bool,
    reconciled: Vec<Reconciled>,
}

impl Report {
    fn add(&mut self, reconciled: Reconciled) -> Result<(), Failure> {
        if !self.json {
            output::line(&reconciled.line())?;
        }
        self.reconciled.push(reconciled);
        Ok(())
    }

    fn finish(self) -> Outcome {
        if self.json {
            return output::json(&json!({ "reconciled": self.reconciled }));
        }
        output::line(&format!("Reconciled {} VMs", self.reconciled.len()))
    }
}

fn one(site: &Site, record: &Record, force: bool) -> Result<Reconciled, Failure> {
    let id = record.id;
    if force && site.home.is_owned(id) {
        signals::interruptible(async { Ok(rpc::end(site, id, None).await?) })?;
        return Ok(Reconciled::new(id, Done::Killed));
    }
    Ok(match site.reconcile(id)? {
        reconcile::Outcome::Running => Reconciled::new(id, Done::Running),
        reconcile::Outcome::Cleaned(resources) => {
            let resources = resources.iter().map(ToString::to_string).collect();
            Reconciled { id, outcome: Done::Cleaned, resources }
        }
    })
}

fn rebuild_state(report: &mut Report) -> Result<(), Failure> {
    let home = Home::open(&host::home()?)?;
    let rebuilt = rebuild(&home, &host::store()?)?;
    if !report.json {
        match &rebuilt.moved {
            Some(path) => output::line(&format!("The damaged database is now {}", path.display()))?,
            None => output::line("The database is sound")?,
        };
    }
    rebuilt.entered.into_iter().try_for_each(|id| report.add(Reconciled::new(id, Done::EnteredAgain)))
}
