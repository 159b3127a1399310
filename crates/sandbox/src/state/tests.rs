//! Tests of the state database as a whole, on real files.

use std::path::{Path, PathBuf};
use std::process::Command;

use api::SandboxId;
use api::lifecycle::Phase;
use tempfile::TempDir;

use super::{FILE_NAME, NewSandbox, State};

mod crashes;
mod damage;
mod migration;
mod records;
mod sharing;

/// A state directory, and where its database goes.
fn home() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(FILE_NAME);
    (home, path)
}

fn id(bits: u32) -> SandboxId {
    SandboxId::from_bits(bits)
}

fn sandbox(bits: u32) -> NewSandbox {
    NewSandbox {
        id: id(bits),
        name: None,
        image: "busybox".into(),
        backend: "qemu".into(),
        keep: false,
        spec: "{}".into(),
        owner_pid: Some(7),
    }
}

/// Takes a sandbox through these phases.
fn walk(state: &State, id: SandboxId, phases: &[Phase]) {
    for phase in phases {
        state.advance(id, *phase, None).unwrap();
    }
}

/// Where a test that was started by itself, in a process of its own, finds the database.
const CHILD: &str = "MATCHLOCK_STATE_TEST";

/// The database to work on, if this is such a process.
fn childs_database() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// The command that runs `test` of this file's module `module` in a process of its own.
fn child(module: &str, test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("state::tests::{module}::{test}"), "--exact", "--nocapture"]).env(CHILD, path);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command
}
