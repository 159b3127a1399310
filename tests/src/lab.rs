//! Commands in a lab: `scripts/lab`, a VM where KVM works and where a test can be root.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::{Output, Running, matchlock, tool};

/// A lab boots in seconds; on a machine without its parts, they are made first.
const LIMIT: Duration = Duration::from_secs(600);

/// A lab that has not been booted.
#[derive(Debug)]
pub struct Lab(Command);

impl Lab {
    /// One whose command runs as an ordinary user, `lab`, who may use KVM.
    #[must_use]
    pub fn new() -> Self {
        let mut lab = Command::new(tool::source_tree().join("scripts/lab"));
        lab.env("MATCHLOCK_BIN", matchlock::binary());
        Self(lab)
    }

    /// One whose command runs as root.
    #[must_use]
    pub fn of_root() -> Self {
        let mut lab = Self::new();
        lab.0.arg("--root");
        lab
    }

    /// One with so much memory, in MiB.
    #[must_use]
    pub fn with_memory(mut self, mib: u32) -> Self {
        self.0.arg("--memory").arg(mib.to_string());
        self
    }

    /// `file` is found there as `path`.
    ///
    /// # Panics
    /// When the file's path is not UTF-8.
    #[must_use]
    pub fn with(mut self, file: &Path, path: &str) -> Self {
        let file = file.to_str().expect("paths of tests are UTF-8");
        self.0.arg("--put").arg(format!("{file}={path}"));
        self
    }

    /// Boots it, runs a command, and gives what that gave.
    ///
    /// # Panics
    /// When it takes longer than ten minutes.
    #[must_use]
    pub fn run(mut self, command: &[&str]) -> Output {
        // Each takes what CPU there is.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Running::start(self.0.arg("--").args(command), LIMIT).wait()
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}
