//! `cargo deny`, which needs the RustSec advisory database from the internet for one of its checks.
//!
//! Without it the other checks still run and decide; that advisories were *not* checked is said so
//! that nobody can take it for a clean bill.

use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::step;

const ADVISORIES_UNCHECKED: &str = "
==============================================================================
ADVISORIES WERE NOT CHECKED: the RustSec database could not be fetched (above).
Licences, bans and sources were. Run `cargo xtask deny` where it is reachable.
==============================================================================";

/// Checks what is reachable.
pub(crate) fn run() -> Result<()> {
    let present = step::command("cargo deny --version").stdout(Stdio::null()).status();
    if !present.context("cannot run cargo")?.success() {
        bail!("cargo-deny is missing: `scripts/setup --dev` installs it");
    }
    if step::run("cargo deny --color never fetch db").is_ok() {
        return step::run("cargo deny check --hide-inclusion-graph");
    }
    step::run("cargo deny check --hide-inclusion-graph bans licenses sources")?;
    eprintln!("{ADVISORIES_UNCHECKED}");
    Ok(())
}
