//! `matchlock gc`.

use sandbox::Site;
use sandbox::home::Home;
use sandbox::rebuild::rebuild;
use sandbox::reconcile;
use sandbox::state::Record;

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
}

pub(crate) fn run(args: &Args) -> Outcome {
    if args.rebuild_state {
        return rebuild_state();
    }
    let site = sandboxes::site()?;
    if let Some(named) = &args.sandbox {
        one(&site, &sandboxes::find(&site, named)?, args.force_running)?;
        return Ok(0);
    }
    let records = site.state.list()?;
    let count = records.len();
    sandboxes::each(records, |record| {
        sandboxes::unless_gone(one(&site, &record, args.force_running)).map(drop)
    })?;
    let unknown = site.remove_unknown()?;
    for id in &unknown {
        output::line(&format!("{id}: removed, it was not on record"))?;
    }
    output::line(&format!("Reconciled {} VMs", count + unknown.len()))
}

fn one(site: &Site, record: &Record, force: bool) -> Result<(), Failure> {
    let id = record.id;
    if force && site.home.is_owned(id) {
        signals::interruptible(async { Ok(rpc::end(site, id, None).await?) })?;
        output::line(&format!("{id}: killed"))?;
        return Ok(());
    }
    let line = match site.reconcile(id)? {
        reconcile::Outcome::Running => format!("{id}: skipped (running)"),
        reconcile::Outcome::Cleaned(resources) if resources.is_empty() => {
            format!("{id}: no resources to clean")
        }
        reconcile::Outcome::Cleaned(resources) => {
            let names: Vec<String> = resources.iter().map(ToString::to_string).collect();
            format!("{id}: cleaned {}", names.join(", "))
        }
    };
    output::line(&line)?;
    Ok(())
}

fn rebuild_state() -> Outcome {
    let home = Home::open(&host::home()?)?;
    let rebuilt = rebuild(&home, &host::store()?)?;
    match &rebuilt.moved {
        Some(path) => output::line(&format!("The damaged database is now {}", path.display()))?,
        None => output::line("The database is sound")?,
    };
    for id in &rebuilt.entered {
        output::line(&format!("{id}: entered again"))?;
    }
    output::line(&format!("Reconciled {} VMs", rebuilt.entered.len()))
}
