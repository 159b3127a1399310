//! `matchlock allow-list`.

use clap::Subcommand;

use crate::failure::{Failure, Outcome};
use crate::{output, sandboxes, signals};

/// Change which hosts a sandbox may reach while it runs.
///
/// New connections and requests see the change at once, and what is open to a host that is taken
/// back ends. Without any host left, a sealed sandbox reaches nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock allow-list add vm-1a2b3c4d pypi.org,files.pythonhosted.org
  matchlock allow-list delete web '*.example.com'
  matchlock allow-list add web '*'          # every public host, explicitly")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Allow hosts.
    #[command(after_help = "\
Examples:
  matchlock allow-list add vm-1a2b3c4d pypi.org,files.pythonhosted.org
  matchlock allow-list add web '*'          # every public host, explicitly")]
    Add(Change),
    /// Take hosts back.
    #[command(after_help = "\
Examples:
  matchlock allow-list delete web '*.example.com'")]
    #[command(visible_alias = "remove")]
    Delete(Change),
}

#[derive(Debug, clap::Args)]
struct Change {
    /// ID, the beginning of one, or name.
    #[arg(value_name = "ID")]
    sandbox: String,
    /// Hosts: names, *.example.com, HOST:PORT, addresses or blocks of them.
    #[arg(value_name = "HOST", value_delimiter = ',', required = true)]
    hosts: Vec<String>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let (Action::Add(change) | Action::Delete(change)) = &args.action;
    if change.hosts.iter().any(|host| host.trim().is_empty()) {
        return Err(Failure::usage("a host is empty"));
    }
    let hosts: Vec<String> = change.hosts.iter().map(|host| host.trim().to_owned()).collect();
    let site = sandboxes::site()?;
    let record = sandboxes::find(&site, &change.sandbox)?;
    signals::interruptible(async {
        let client = sandboxes::connect(&site, &record).await?;
        let (done, hosts, allowed) = match &args.action {
            Action::Add(_) => {
                let result = client.allow(&hosts).await?;
                if change.json {
                    return output::json(&result);
                }
                ("Added to", result.added, result.allowed_hosts)
            }
            Action::Delete(_) => {
                let result = client.disallow(&hosts).await?;
                if change.json {
                    return output::json(&result);
                }
                ("Removed from", result.removed, result.allowed_hosts)
            }
        };
        let shown = if allowed.is_empty() { EMPTY.to_owned() } else { allowed.join(", ") };
        output::line(&format!("{done} {}: {}\nCurrent allow-list: {shown}", record.id, hosts.join(",")))
    })
}

/// What a list without hosts means.
const EMPTY: &str = "(empty: all hosts blocked)";
