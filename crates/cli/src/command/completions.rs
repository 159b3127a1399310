//! `matchlock completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::failure::Outcome;
use crate::output;

/// Print a shell's completion script.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock completions bash > ~/.local/share/bash-completion/completions/matchlock
  matchlock completions zsh > ~/.zfunc/_matchlock
  matchlock completions fish > ~/.config/fish/completions/matchlock.fish")]
pub(crate) struct Args {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::args::Args::command(), "matchlock", &mut script);
    output::bytes(&script)
}
