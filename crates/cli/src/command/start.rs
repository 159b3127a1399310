//! `matchlock start`.

use std::path::PathBuf;

use api::{Explain, Kind, SandboxId};
use sandbox::home::Ownership;
use sandbox::{Created, Site};

use super::owner::{self, Detached};
use crate::failure::{Failure, Outcome};
use crate::network::{self, Values};
use crate::signals::{self, Signals};
use crate::{output, sandboxes};

/// Start sandboxes that were stopped, with the disk and the configuration that they had.
///
/// The command that a sandbox was made for runs again, in the background: `matchlock log` shows
/// what it writes.
///
/// The values of its secrets are not stored anywhere: they are read again from variables of their
/// names here, or from --secret-file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock start vm-1a2b3c4d
  matchlock start --secret-file secrets.json web")]
pub(crate) struct Args {
    /// Values of secrets from a JSON file, as of `run`.
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,
    /// IDs, beginnings of IDs, or names.
    #[arg(value_name = "ID")]
    sandboxes: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let site = sandboxes::site()?;
    let records = sandboxes::chosen(&site, &args.sandboxes, false)?;
    let given = network::values_in_files(&args.secret_file)?;
    signals::caught(async |signals| {
        for record in records {
            match start(&site, record.id, &given, signals).await? {
                Detached::Running => output::line(&format!("Started {}", record.id))?,
                Detached::Failed(code) => return Ok(code),
            };
        }
        Ok(0)
    })
}

async fn start(
    site: &Site,
    id: SandboxId,
    given: &Values,
    signals: &mut Signals,
) -> Result<Detached, Failure> {
    // What a killed owner left is released first.
    site.reconcile(id)?;
    match site.take(id)? {
        Ownership::Owned => Err(AlreadyRunning(id).into()),
        Ownership::Taken(lock) => {
            let tidy = |id| site.reconcile(id).map(drop);
            let created = Created::resume(site, id, lock)?;
            let secrets = network::values(&created.blueprint().spec.network, given)?;
            owner::detach(created, &secrets, signals, tidy).await
        }
        Ownership::Missing => {
            site.state.record(id)?;
            Err(Failure::usage(format!("the directory of {id} is missing; remove it: matchlock rm {id}")))
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("sandbox {0} is running already")]
struct AlreadyRunning(SandboxId);

impl Explain for AlreadyRunning {
    fn kind(&self) -> Kind {
        Kind::Conflict
    }

    fn hint(&self) -> Option<String> {
        Some(format!("enter it with: matchlock exec -it {} -- sh", self.0))
    }
}
