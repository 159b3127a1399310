//! The Firecracker driver: a VMM that is little else than KVM and four kinds of devices.
//!
//! It is configured by a file that it never has a name for, and its sockets have names only while it
//! starts. It calls nobody: the host connects to its guest and to its API, so the one thing that its jail
//! has to leave it, sockets that listen, leads nowhere. Its network interface is a TAP device in
//! a network namespace that is the VMM's own; see [`sys::process::Tap`].

mod api;
mod configuration;
mod launch;
mod sockets;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use sys::kvm::{self, KvmUnusable};
use thiserror::Error;

pub use api::{Api, ApiError};
use launch::Launch;

use crate::error::VmmError;
use crate::machine::{Machine, MachineSpec};

/// What it is called.
pub(crate) const NAME: &str = "Firecracker";

/// The program's name.
const PROGRAM: &str = "firecracker";

/// The oldest version that has all we use; before, it found no devices by ACPI.
const LEAST: (u32, u32) = (1, 7);

/// The same in words.
const LEAST_TEXT: &str = "1.7";

/// How to get it.
pub(crate) const INSTALL: &str =
    "put the firecracker of a release of 1.7 or later (github.com/firecracker-microvm/firecracker) into PATH";

/// Firecracker, found on this host.
#[derive(Debug, Clone)]
pub struct Firecracker {
    program: PathBuf,
    options: Options,
}

/// What not every host has, or not every user wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Guests' memory in pages of 2 MiB, which the host must have set aside (`vm.nr_hugepages`).
    pub huge_pages: bool,
    /// A file that says what guests see of the CPU, in Firecracker's format (`docs/cpu_templates` there).
    pub cpu_template: Option<PathBuf>,
}

/// Why Firecracker is not what `--backend auto` takes.
#[derive(Debug, Error)]
pub enum Unsuited {
    /// There is none.
    #[error("firecracker was not found in PATH")]
    NotInstalled,
    /// It would not work.
    #[error("KVM is not usable: {0}")]
    Kvm(#[source] &'static KvmUnusable),
    /// It could have no network.
    #[error("user namespaces cannot be used: {0}")]
    Namespaces(#[source] io::Error),
    /// The same.
    #[error("/dev/net/tun cannot be used: {0}")]
    Tun(#[source] io::Error),
    /// It has to open its disks by name, so it would be root.
    #[error("as root, QEMU is confined better: its process becomes nobody")]
    Root,
}

impl Firecracker {
    /// Looks for it in the directories of `path` (as in `$PATH`).
    ///
    /// # Errors
    /// [`VmmError::NotInstalled`], [`VmmError::Kvm`].
    pub fn find(path: &OsStr) -> Result<Self, VmmError> {
        let missing = VmmError::NotInstalled { program: PROGRAM, install: INSTALL };
        let program = crate::driver::find(PROGRAM, path).ok_or(missing)?;
        kvm::probe().map_err(|source| VmmError::Kvm { vmm: NAME, source })?;
        Ok(Self { program, options: Options::default() })
    }

    /// The same, if it is the best choice here.
    ///
    /// # Errors
    /// Why it is not.
    pub fn preferred(path: &OsStr) -> Result<Self, Unsuited> {
        let program = crate::driver::find(PROGRAM, path).ok_or(Unsuited::NotInstalled)?;
        kvm::probe().map_err(Unsuited::Kvm)?;
        if rustix::process::geteuid().is_root() {
            return Err(Unsuited::Root);
        }
        sys::process::try_namespaces().map_err(Unsuited::Namespaces)?;
        sys::tap::try_device().map_err(Unsuited::Tun)?;
        Ok(Self { program, options: Options::default() })
    }

    /// The same with these options.
    #[must_use]
    pub fn with(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// The program, symbolic links resolved.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts a machine, and returns when Firecracker runs and was found to be one that we know. The
    /// guest may open streams to [`proto::Port::Boot`]. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`VmmError`]; nothing is left behind.
    pub async fn boot(&self, spec: MachineSpec) -> Result<Machine, VmmError> {
        let Self { program, options } = self.clone();
        let launch = crate::launch::on_a_thread(move || Launch::new(&program, &options, spec)).await?;
        launch.into_machine().await
    }
}

/// Whether this version, as Firecracker says it (`1.12.1`), is one that works.
fn is_known(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= LEAST,
        _ => false,
    }
}

/// What to do about a Firecracker that gave up, judged by what it wrote to its standard error.
pub(crate) fn hint(complaint: &str) -> Option<String> {
    let has = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    if has(&["Cannot allocate memory", "Out of memory", "ENOMEM"]) {
        return Some("the host is short of memory: give the VM less (--memory), or end something".to_owned());
    }
    if has(&["unknown field", "Invalid JSON", "Unknown argument", "Arguments error", "ArgumentParsing"]) {
        return Some(format!("this Firecracker does not know what it is asked for; {INSTALL}"));
    }
    has(&["kvm", "KVM", "/dev/net/tun"]).then(|| "look at `matchlock diagnose`".to_owned())
}

/// How little a line of its standard error tells of why Firecracker gave up: it says the reason, then the same in
/// the terms of its source text, and at last only that it ends.
pub(crate) fn vagueness(line: &str) -> u8 {
    let farewells = ["Firecracker exiting with error", "Shutting down VM after intercepting a bad syscall"];
    match line {
        _ if farewells.iter().any(|words| line.contains(words)) => 2,
        _ if line.starts_with("Error: ") => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_1_7_are_known() {
        for known in ["1.7.0", "1.12.1", "1.15.0-dev", "2.0.0"] {
            assert!(is_known(known), "{known}");
        }
        for unknown in ["1.6.9", "0.25.2", "", "1", "v1.12.1", "x.y"] {
            assert!(!is_known(unknown), "{unknown}");
        }
    }

    #[test]
    fn a_firecracker_that_gives_up_is_explained() {
        assert!(hint("Invalid JSON: unknown field `entropy`").unwrap().contains("1.7"));
        assert!(hint("Cannot create VM: Error creating KVM object").unwrap().contains("diagnose"));
        for words in ["Cannot allocate memory", "Out of memory"] {
            assert!(hint(&format!("mmap: {words} (os error 12)")).unwrap().contains("--memory"));
        }
        assert_eq!(hint(""), None);
    }
}
