//! The command line as it is typed. What it means is up to each command's own file.

use clap::{Parser, Subcommand};

use crate::command;

/// Run untrusted code in disposable micro-VMs.
///
/// Every command gets a virtual machine of its own, made from any OCI image, that is gone when the
/// command ends. No root, no daemon, and no KVM needed.
#[derive(Debug, Parser)]
#[command(name = "matchlock", version = command::version::LINE, propagate_version = true)]
#[command(after_help = "\
Examples:
  matchlock diagnose                       # checks this machine, and names each fix
  matchlock run --image debian:12 -it -- bash
  matchlock run -d --name web -p 8080:80 --image nginx
  matchlock exec -it web -- sh")]
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn each(command: &clap::Command, check: &mut impl FnMut(&clap::Command)) {
        check(command);
        let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
        shown.for_each(|command| each(command, check));
    }

    #[test]
    fn every_command_has_help_with_examples() {
        let mut count = 0;
        each(&Args::command(), &mut |command| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let name = command.get_name();
            assert!(command.get_about().is_some() && help.contains("Examples:\n"), "{name}: {help}");
            count += 1;
        });
        assert!(count > 35, "{count}");
    }
}
