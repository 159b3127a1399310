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
    Pull(command::pull::Args),
    Image(command::image::Args),
    Kernel(command::kernel::Args),
    Diagnose(command::diagnose::Args),
    Version(command::version::Args),
    Completions(command::completions::Args),
}
