//! The binary under test, with a state directory of its own.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::cache;
use crate::process::{Output, Running};
use crate::remains;

/// How long one command may take: a boot under emulation on a busy machine takes seconds, so this
/// is a hang.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Variables of the host that would change what is tested.
const HOST_VARIABLES: [&str; 4] = ["DOCKER_CONFIG", "MATCHLOCK_LOG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"];

/// The binary under test and its directories, removed when dropped.
#[derive(Debug)]
pub struct Matchlock {
    binary: PathBuf,
    base: TempDir,
    cache: PathBuf,
    /// Words in front of every command.
    entrance: Option<(PathBuf, Vec<String>)>,
    /// Further variables of every command.
    environment: Vec<(OsString, OsString)>,
}

impl Matchlock {
    /// With the images of [`cache`], shared with other tests: not for tests that remove images.
    #[must_use]
    pub fn new() -> Self {
        let binary = binary();
        let cache = cache::shared(&binary).to_owned();
        Self::with(binary, base(), cache)
    }

    /// With kernels and no image.
    #[must_use]
    pub fn without_images() -> Self {
        let base = base();
        let cache = base.path().join("cache");
        cache::fill_with_kernels(&cache);
        Self::with(binary(), base, cache)
    }

    fn with(binary: PathBuf, base: TempDir, cache: PathBuf) -> Self {
        Self { binary, base, cache, entrance: None, environment: Vec::new() }
    }

    /// Runs all further commands behind `entrance`, where servers have certificates of `authority`.
    pub(crate) fn enter(&mut self, entrance: (PathBuf, Vec<String>), authority: &Path) {
        self.entrance = Some(entrance);
        self.environment.push(("SSL_CERT_FILE".into(), authority.into()));
    }

    /// Further images of [`cache`], for tests that need them.
    #[must_use]
    pub fn with_images(self, names: &[&str]) -> Self {
        cache::import_further(&self.binary, names);
        self
    }

    /// A variable of every further command.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// `HOME`, where a test can place credentials: `.docker/config.json`.
    #[must_use]
    pub fn user_home(&self) -> PathBuf {
        self.base.path().join("user")
    }

    /// `MATCHLOCK_HOME`.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.base.path().join("home")
    }

    /// `MATCHLOCK_CACHE`.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// A command of the binary, with empty standard input, to be changed and started.
    #[must_use]
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = match &self.entrance {
            None => Command::new(&self.binary),
            Some((program, words)) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.binary);
                command
            }
        };
        command.args(arguments).stdin(Stdio::null());
        for name in HOST_VARIABLES {
            command.env_remove(name);
        }
        command.env("HOME", self.user_home());
        command.env("MATCHLOCK_HOME", self.home()).env("MATCHLOCK_CACHE", &self.cache);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When that takes longer than [`LIMIT`].
    #[must_use]
    pub fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Output {
        Running::start(&mut self.command(arguments), LIMIT).wait()
    }

    /// Runs a command that gets `input` on its standard input.
    ///
    /// # Panics
    /// When that takes longer than [`LIMIT`].
    #[must_use]
    pub fn run_with_input(&self, arguments: &[impl AsRef<OsStr>], input: impl Into<Vec<u8>>) -> Output {
        let mut running = self.spawn(arguments);
        running.feed(input.into());
        running.wait()
    }

    /// Starts a command whose standard input is a pipe.
    #[must_use]
    pub fn spawn(&self, arguments: &[impl AsRef<OsStr>]) -> Running {
        Running::start(self.command(arguments).stdin(Stdio::piped()), LIMIT)
    }

    /// Nothing of ours is left: no process, no sandbox, no temporary file in the cache.
    ///
    /// # Panics
    /// When something is, and still is after some seconds; it names what.
    pub fn assert_nothing_left(&self) {
        remains::assert_none(&self.home(), &self.cache);
        assert_eq!(self.list(), Vec::<Value>::new(), "sandboxes are on record");
    }

    /// What `list --json` says.
    ///
    /// # Panics
    /// When that is not a JSON array.
    #[must_use]
    pub fn list(&self) -> Vec<Value> {
        let output = self.run(&["list", "--json"]).success();
        serde_json::from_slice(&output.stdout).expect("list --json prints an array")
    }

    /// Leaves a sandbox running in the background (`run -d`), and gives its ID.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn detached(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["run", "-d"], arguments].concat()).success();
        let text = output.stdout_text();
        let id = text.trim_end();
        assert!(id.starts_with("vm-") && id.len() == 11, "only the ID is on stdout: {text:?}");
        id.to_owned()
    }

    /// What `inspect` says.
    ///
    /// # Panics
    /// When there is no such sandbox.
    #[must_use]
    pub fn inspect(&self, id: &str) -> Value {
        let output = self.run(&["inspect", id]).success();
        serde_json::from_slice(&output.stdout).expect("inspect prints an object")
    }

    /// The PID of a sandbox's owner.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn owner(&self, id: &str) -> Pid {
        let pid = self.inspect(id)["vm"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.and_then(Pid::from_raw).unwrap_or_else(|| panic!("{id} has no owner"))
    }

    /// The PID of a sandbox's VMM.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn vmm(&self, id: &str) -> Pid {
        let inspected = self.inspect(id);
        let resources = inspected["lifecycle"]["resources"].as_array().expect("they are a list");
        let process = resources.iter().find(|resource| resource["kind"] == "process");
        let pid = process.and_then(|process| i32::try_from(process["pid"].as_i64()?).ok());
        pid.and_then(Pid::from_raw).unwrap_or_else(|| panic!("{id} has no VMM: {inspected:#}"))
    }
}

/// Sandboxes in the background do not outlive the test that left them there.
impl Drop for Matchlock {
    fn drop(&mut self) {
        let left = std::fs::read_dir(self.home().join("sandboxes"));
        if left.is_ok_and(|mut left| left.next().is_some()) {
            let _ = self.command(&["kill", "--all"]).output();
        }
    }
}

impl Default for Matchlock {
    fn default() -> Self {
        Self::new()
    }
}

/// The binary under test: what `MATCHLOCK_BIN` names, else the one built beside the tests.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("MATCHLOCK_BIN") {
        return std::path::absolute(&path).expect("MATCHLOCK_BIN is not empty");
    }
    let tests = env::current_exe().expect("a test knows its own path");
    let profile = tests.parent().and_then(Path::parent).expect("tests are built to PROFILE/deps");
    let binary = profile.join("matchlock");
    assert!(binary.is_file(), "{} is missing: run cargo build first, or set MATCHLOCK_BIN", binary.display());
    binary
}

/// Makes `path` a copy of the binary under test, to be started from there.
///
/// A process of its own writes it: a writer of ours would be inherited by what another test starts at
/// that moment, and nobody can execute a file that somebody has open for writing (`ETXTBSY`).
///
/// # Panics
/// When there is no space for it.
pub fn copy_binary(path: &Path) {
    let copied = Command::new("cp").arg(binary()).arg(path).status().expect("cp cannot be started");
    assert!(copied.success(), "cannot copy the binary to {}", path.display());
}

fn base() -> TempDir {
    let base = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(base.path().join("user")).expect("the directory is ours");
    base
}
