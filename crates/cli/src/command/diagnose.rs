//! `matchlock diagnose`.

use sandbox::diagnose::{Finding, Host, Severity, diagnose};

use crate::backend::BackendArg;
use crate::failure::Outcome;
use crate::{host, output, signals};

/// Check what this machine has and lacks for running sandboxes.
///
/// Boots a test VM, as `run` would. Each thing that is missing comes with its fix.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock diagnose
  matchlock diagnose --backend firecracker     # whether that one works here

Exit code: 0 if sandboxes can run, 1 if not, 2 wrong usage.")]
pub(crate) struct Args {
    #[command(flatten)]
    backend: BackendArg,
    /// Print a JSON array.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let (path, home, cache) = (host::path(), host::home()?, host::cache()?);
    let host = Host {
        path: &path,
        home: &home,
        cache: &cache,
        kernel: host::kernel(),
        backend: args.backend.chosen()?,
        firecracker: host::firecracker()?,
    };
    let findings = signals::interruptible(async { Ok(diagnose(&host).await) })?;
    let can_run = findings.iter().all(|finding| finding.severity < Severity::Failure);
    if args.json {
        output::json(&findings)?;
    } else {
        let findings: String = findings.iter().map(shown).collect();
        let verdict = if can_run { "Sandboxes can run here." } else { "Sandboxes cannot run here yet." };
        output::styled(&format!("{findings}{verdict}\n"))?;
    }
    Ok(u8::from(!can_run))
}

fn shown(finding: &Finding) -> String {
    let mark = match finding.severity {
        Severity::Ok => "\x1b[32mok\x1b[0m     ",
        Severity::Warning => "\x1b[33mwarning\x1b[0m",
        Severity::Failure => "\x1b[31mFAILURE\x1b[0m",
    };
    let fix = finding.fix.as_ref().map(|fix| format!("         {:24}  fix: {fix}\n", "")).unwrap_or_default();
    format!("{mark}  {:24}  {}\n{fix}", finding.subject, output::harmless(&finding.found))
}
