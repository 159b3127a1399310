//! A command in a lab. All of it is scripts/lab, which needs no build.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Result, bail};

use crate::step;

/// Becomes the script, so that signals and the exit code are its own.
pub(crate) fn run(words: &[OsString]) -> Result<()> {
    let error = Command::new(step::workspace().join("scripts/lab")).args(words).exec();
    bail!("cannot run scripts/lab: {error}")
}
