//! `matchlock log`.

use crate::failure::{Failure, Outcome};
use crate::{output, sandboxes, signals};

/// Show what a sandbox's console and its commands wrote.
///
/// The newest 4 to 8 MiB are kept. Commands with a terminal (`exec -t`) are not logged.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock log vm-1a2b3c4d
  matchlock log -f vm-1a2b3c4d")]
pub(crate) struct Args {
    /// Go on showing what is added, until the sandbox ends.
    #[arg(short, long)]
    follow: bool,
    /// ID, the beginning of one, or name.
    #[arg(value_name = "ID")]
    sandbox: String,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let site = sandboxes::site()?;
    let record = sandboxes::find(&site, &args.sandbox)?;
    if args.follow && site.home.is_owned(record.id) {
        return signals::interruptible(async {
            let client = sandboxes::connect(&site, &record).await?;
            let mut log = client.log_stream().await?;
            while let Some(piece) = log.next().await? {
                match output::bytes(&piece)? {
                    0 => {}
                    code => return Ok(code),
                }
            }
            Ok(0)
        });
    }
    let directory = site.home.directory(record.id);
    let content = sandbox::log::read(&directory, sandbox::log::OUTPUT)
        .map_err(|error| Failure::io(format!("cannot read the log of {}", record.id), error))?;
    output::bytes(&content)
}
