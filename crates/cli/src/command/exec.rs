//! `matchlock exec`.

use std::path::PathBuf;

use api::rpc::ExecParams;
use rpc::client::Mode;

use crate::failure::{Failure, Outcome};
use crate::session::{self, Attended, Connection, remote};
use crate::{environment, sandboxes, signals, terminal};

/// Run a command in a sandbox that is running.
///
/// It gets the environment, the working directory, the user and the privileges that the sandbox was
/// run with, unless it is given its own; the image's entrypoint is not used. Signals are passed on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock exec vm-1a2b3c4d -- ls -l /
  matchlock exec -it web -- sh
  tar c . | matchlock exec -i web -- tar x -C /srv

Exit code: the command's; 128+N if signal N ended it; 127 command not found; 126 not executable;
125 matchlock failed; 2 wrong usage.")]
pub(crate) struct Args {
    /// Pass standard input on.
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal.
    #[arg(short, long)]
    tty: bool,
    /// Working directory.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User and group: NAME, UID, NAME:GROUP or UID:GID, from the image's /etc/passwd and /etc/group.
    #[arg(short, long)]
    user: Option<String>,
    /// Set a variable: NAME=VALUE, or NAME for the value it has here.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file of such lines; --env overrides them.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// ID, the beginning of one, or name.
    #[arg(value_name = "ID")]
    sandbox: String,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    exec(args).map_err(Failure::of_run)
}

fn exec(args: &Args) -> Outcome {
    let (params, connection) = meaning(args)?;
    let site = sandboxes::site()?;
    let record = sandboxes::find(&site, &args.sandbox)?;
    signals::caught(async |signals| {
        let client = sandboxes::connect(&site, &record).await?;
        let mode = if connection.terminal { Mode::Tty } else { Mode::Pipe };
        let mut command = client.exec(&params, mode).await?;
        if mode == Mode::Pipe && !connection.stdin {
            command.input.finish().await?;
        }
        match session::attend(remote::command(command), connection, Some(signals)).await {
            Ok(Attended::Ended(code) | Attended::NotStarted(code)) => Ok(code),
            Err(session::Error::Agent(error)) => Err(error.into()),
            Err(session::Error::Own(failure)) => Err(failure),
        }
    })
}

/// What the arguments ask for. `exec ID -it sh` means what `exec -it ID sh` does.
fn meaning(args: &Args) -> Result<(ExecParams, Connection), Failure> {
    let mut connection =
        Connection { stdin: args.interactive, terminal: args.tty, detached: false, timeout: None };
    let mut argv = args.command.clone();
    while let Some(flags) = argv.first().and_then(|word| late_flags(word)) {
        connection.stdin |= flags.contains('i');
        connection.terminal |= flags.contains('t');
        argv.remove(0);
    }
    if argv.first().is_some_and(|word| word == "--") {
        argv.remove(0);
    }
    if argv.is_empty() {
        return Err(Failure::usage("no command: matchlock exec ID -- COMMAND"));
    }
    terminal::check(connection.terminal, connection.stdin)?;
    let env = environment::collect(&args.env_file, &args.env)?;
    let size = terminal::size();
    let params = ExecParams {
        command: None,
        argv: Some(argv),
        working_dir: args.workdir.clone(),
        user: args.user.clone(),
        env: Some(env.into_iter().collect()),
        rows: connection.terminal.then_some(size.rows),
        cols: connection.terminal.then_some(size.columns),
    };
    Ok((params, connection))
}

/// The letters of `-it` and its like, behind the ID.
fn late_flags(word: &str) -> Option<&str> {
    word.strip_prefix('-')
        .filter(|letters| !letters.is_empty() && letters.bytes().all(|letter| matches!(letter, b'i' | b't')))
}
