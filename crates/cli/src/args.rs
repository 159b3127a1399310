//! The command line as it is typed. What it means is up to each command's own file.

use clap::{Parser, Subcommand};

use crate::command;

/// Run untrusted code in disposable micro-VMs.
///
/// Every command gets a virtual machine of its own, made from any OCI image, that is gone when the
/// command ends. No root, no daemon, and no KVM needed.
#[derive(Debug, Parser)]
#[command(name = "matchlock", version = command::version::LINE, propagate_version = true)]
#[command(after_help = "Start with `matchlock diagnose`: it checks this machine and names each fix.")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One variant a command; its arguments are in the file of its name.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<command::run::Args>),
    Exec(command::exec::Args),
    #[command(visible_aliases = ["ls", "ps"])]
    List(command::list::Args),
    Get(command::get::Args),
    #[command(alias = "stat")]
    Inspect(command::inspect::Args),
    Log(command::log::Args),
    AllowList(command::allow_list::Args),
    Policy(command::policy::Args),
    PortForward(command::port_forward::Args),
    Stop(command::stop::Args),
    Start(command::start::Args),
    Kill(command::kill::Args),
    Rm(command::rm::Args),
    Prune(command::prune::Args),
    Gc(command::gc::Args),
    Pull(command::pull::Args),
    Image(command::image::Args),
    Volume(command::volume::Args),
    Kernel(command::kernel::Args),
    Setup(command::setup::Args),
    Diagnose(command::diagnose::Args),
    Version(command::version::Args),
    Completions(command::completions::Args),
    Owner(command::owner::Args),
}
