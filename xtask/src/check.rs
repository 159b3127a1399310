//! Everything that can be said about the source without running it.

use anyhow::Result;

use crate::{deny, layers, step};

/// Quick checks first, so that a slip shows in seconds.
pub(crate) fn run() -> Result<()> {
    layers::run()?;
    step::run("cargo fmt --all --check")?;
    step::run("cargo clippy --workspace --all-targets --quiet -- -D warnings")?;
    deny::run()
}
