//! One file a command: its arguments, what they mean, what it prints.

pub(crate) mod completions;
pub(crate) mod diagnose;
pub(crate) mod image;
pub(crate) mod kernel;
pub(crate) mod pull;
pub(crate) mod run;
pub(crate) mod version;

use crate::args::Command;
use crate::failure::Outcome;

/// Runs a command to its end.
pub(crate) fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Pull(args) => pull::run(args),
        Command::Image(args) => image::run(args),
        Command::Kernel(args) => kernel::run(args),
        Command::Diagnose(args) => diagnose::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}
