//! One file a command: its arguments, what they mean, what it prints.

pub(crate) mod allow_list;
pub(crate) mod completions;
pub(crate) mod diagnose;
pub(crate) mod exec;
pub(crate) mod gc;
pub(crate) mod get;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod kernel;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod log;
pub(crate) mod owner;
pub(crate) mod policy;
pub(crate) mod port_forward;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod setup;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod version;
pub(crate) mod volume;

use crate::args::Command;
use crate::failure::Outcome;

/// Runs a command to its end.
pub(crate) fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Exec(args) => exec::run(&args),
        Command::List(args) => list::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Log(args) => log::run(&args),
        Command::AllowList(args) => allow_list::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::PortForward(args) => port_forward::run(&args),
        Command::Stop(args) => stop::run(&args),
        Command::Start(args) => start::run(&args),
        Command::Kill(args) => kill::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Prune(args) => prune::run(&args),
        Command::Gc(args) => gc::run(&args),
        Command::Owner(args) => owner::run(&args),
        Command::Pull(args) => pull::run(args),
        Command::Image(args) => image::run(args),
        Command::Volume(args) => volume::run(args),
        Command::Kernel(args) => kernel::run(args),
        Command::Setup(args) => setup::run(&args),
        Command::Diagnose(args) => diagnose::run(&args),
        Command::Version(args) => version::run(&args),
        Command::Completions(args) => completions::run(&args),
    }
}
