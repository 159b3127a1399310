//! One step of a chore: a program run in the workspace, its failure told with its name.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The root of the workspace, where every step runs.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the workspace")
}

/// `program arguments` in the workspace, words separated by spaces.
pub(crate) fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program's name"));
    command.args(words).current_dir(workspace()).stdin(Stdio::null());
    command
}

/// Runs it in sight of the user.
///
/// # Errors
/// It cannot be started, or fails.
pub(crate) fn run(line: &str) -> Result<()> {
    eprintln!("--- {line}");
    let status = command(line).status().with_context(|| format!("cannot run {line}"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}
