//! `matchlock setup`: what only root can do for sandboxes.

use api::{Explain, Kind};
use clap::Subcommand;
use sandbox::prepare::{self, Check, Facts, PrepareError, Step};
use serde::Serialize;
use thiserror::Error;

use crate::failure::{Failure, Outcome};
use crate::output;

/// Prepare this machine, or a user of it, for sandboxes. The only command that needs root.
///
/// Without it sandboxes run too, but emulated and with fewer walls: `matchlock diagnose` says what
/// is missing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock setup linux --dry-run
  sudo matchlock setup linux
  sudo matchlock setup user $USER")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Prepare this machine: KVM, TAP devices, user namespaces; now and for after a reboot.
    ///
    /// Only what is missing is done, so it can be run again at any time.
    #[command(after_help = "\
Examples:
  matchlock setup linux --dry-run       # what it would do, as commands; changes nothing
  sudo matchlock setup linux")]
    Linux(How),
    /// Let a user use KVM: make them a member of the group kvm.
    #[command(after_help = "\
Examples:
  matchlock setup user $USER --dry-run
  sudo matchlock setup user $USER       # then log in again")]
    User {
        /// The user.
        name: String,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, clap::Args)]
struct How {
    /// Print the commands of what is missing, for a shell, and change nothing. Needs no root.
    #[arg(long)]
    dry_run: bool,
    /// Print a JSON array: [{"step": …, "state": "ok"|"done"|"missing"|"skipped"|"failed", "commands": […]}].
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Error)]
#[error("preparing a machine takes root")]
struct NeedsRoot(String);

impl Explain for NeedsRoot {
    fn kind(&self) -> Kind {
        Kind::HostUnready
    }

    fn hint(&self) -> Option<String> {
        let command = prepare::as_root(&format!("setup {}", self.0));
        Some(format!("run it with sudo: {command}; --dry-run shows what it would do"))
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.action {
        Action::Linux(how) => {
            how.go("linux", "This machine is prepared.", || Ok(prepare::linux(&Facts::look())))
        }
        Action::User { name, how } => {
            let done = format!("It counts once {name} has logged in again.");
            how.go(&format!("user {name}"), &done, || Ok(vec![prepare::user(&Facts::look(), name)?]))
        }
    }
}

/// A step, and what became of it.
#[derive(Serialize)]
struct Prepared {
    step: String,
    state: State,
    /// What was done for it, or would be.
    commands: Vec<String>,
    /// Why it was skipped, or has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It was there.
    Ok,
    /// It was missing and is there now.
    Done,
    /// It is missing, and this is a dry run.
    Missing,
    /// It cannot be had here, or is of no use.
    Skipped,
    /// One of its commands failed.
    Failed,
}

impl How {
    /// Does, or only shows, what `look` finds missing, and `done` at the end; then looks again. A step that
    /// fails does not keep the others from being done.
    fn go(&self, what: &str, done: &str, look: impl Fn() -> Result<Vec<Step>, PrepareError>) -> Outcome {
        let is_root = rustix::process::geteuid().is_root();
        if !is_root && !self.dry_run {
            return Err(NeedsRoot(what.to_owned()).into());
        }
        let mut all = Vec::new();
        let mut failures: Vec<Failure> = Vec::new();
        for Step { name, check } in look()? {
            let mut prepared = Prepared { step: name, state: State::Ok, commands: Vec::new(), reason: None };
            match check {
                Check::Ok => {}
                Check::Skipped(reason) => {
                    prepared.state = State::Skipped;
                    prepared.reason = Some(reason.to_owned());
                }
                Check::Missing(actions) => {
                    prepared.commands = actions.iter().map(|action| action.line(is_root)).collect();
                    prepared.state = if self.dry_run { State::Missing } else { State::Done };
                    if !self.dry_run
                        && let Err(error) = actions.iter().try_for_each(prepare::Action::carry_out)
                    {
                        let failure = Failure::from(error);
                        prepared.state = State::Failed;
                        prepared.reason = Some(failure.with_causes());
                        failures.push(failure);
                    }
                }
            }
            self.show(&prepared)?;
            all.push(prepared);
        }
        if !self.dry_run && failures.is_empty() {
            let missing = look()?.into_iter().find(|step| matches!(step.check, Check::Missing(_)));
            failures.extend(missing.map(|step| PrepareError::NoEffect(step.name).into()));
        }
        if self.json {
            output::json(&all)?;
        }
        let Some(last) = failures.pop() else { return self.conclude(&all, done) };
        for failure in failures {
            failure.report();
        }
        Err(last)
    }

    /// A dry run's output is a script, so what is no command is a comment in it.
    fn show(&self, prepared: &Prepared) -> Outcome {
        if self.json {
            return Ok(0);
        }
        let Prepared { step, state, commands, reason } = prepared;
        let state = match state {
            State::Ok => "ok",
            State::Done => "done",
            State::Missing => "missing",
            State::Skipped => "skipped",
            State::Failed => "failed",
        };
        let (mark, indent) = if self.dry_run { ("# ", "") } else { ("", "         ") };
        let mut text = format!("{mark}{state:7}  {step}");
        if let Some(reason) = reason {
            text += &format!(": {reason}");
        }
        for command in commands {
            text += &format!("\n{indent}{command}");
        }
        output::line(&text)
    }

    fn conclude(&self, prepared: &[Prepared], done: &str) -> Outcome {
        if self.json {
            return Ok(0);
        }
        let nothing = prepared.iter().all(|step| step.commands.is_empty());
        match (nothing, self.dry_run) {
            (true, true) => output::line("# Nothing to do."),
            (true, false) => output::line("Nothing to do."),
            (false, true) => Ok(0),
            (false, false) => output::line(done),
        }
    }
}
