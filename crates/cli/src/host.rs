//! What the tool takes from its environment: directories, the kernel override, the log.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use image::store::Store;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;
use vmm::firecracker::Options;

use crate::failure::Failure;
use crate::output;

/// Where sandboxes live: `MATCHLOCK_HOME`, default `~/.matchlock`.
pub(crate) fn home() -> Result<PathBuf, Failure> {
    directory("MATCHLOCK_HOME", |home| home.join(".matchlock"))
}

/// Where images and kernels are kept: `MATCHLOCK_CACHE`, default `~/.cache/matchlock`.
pub(crate) fn cache() -> Result<PathBuf, Failure> {
    directory("MATCHLOCK_CACHE", |home| home.join(".cache/matchlock"))
}

/// The image store.
pub(crate) fn store() -> Result<Store, Failure> {
    Ok(Store::open(cache()?.join("images"))?)
}

/// The kernel that the environment names: `MATCHLOCK_KERNEL`, or the older `SANDBOX_KERNEL`.
pub(crate) fn kernel() -> Option<PathBuf> {
    set("MATCHLOCK_KERNEL").or_else(|| set("SANDBOX_KERNEL")).map(PathBuf::from)
}

/// How Firecracker is to be used: `MATCHLOCK_HUGE_PAGES`, 0 or 1, and `MATCHLOCK_CPU_TEMPLATE`, a file.
pub(crate) fn firecracker() -> Result<Options, Failure> {
    let huge_pages = match set("MATCHLOCK_HUGE_PAGES").as_deref().map(OsStr::as_encoded_bytes) {
        None | Some(b"0") => false,
        Some(b"1") => true,
        Some(_) => return Err(Failure::usage("MATCHLOCK_HUGE_PAGES must be 0 or 1")),
    };
    Ok(Options { huge_pages, cpu_template: set("MATCHLOCK_CPU_TEMPLATE").map(PathBuf::from) })
}

/// Where programs are looked for: `PATH`.
pub(crate) fn path() -> OsString {
    set("PATH").unwrap_or_default()
}

/// Logs to standard error what `MATCHLOCK_LOG` asks for (`debug`, `vmm=trace`, …); warnings if it
/// asks for nothing, or for what cannot be understood.
pub(crate) fn start_log() {
    let asked = set("MATCHLOCK_LOG").map(|text| EnvFilter::try_new(text.to_string_lossy()));
    let (filter, wrong) = match asked {
        None => (None, None),
        Some(Ok(filter)) => (Some(filter), None),
        Some(Err(error)) => (None, Some(error)),
    };
    let filter = filter.unwrap_or_else(|| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| output::Complaints).init();
    if let Some(error) = wrong {
        tracing::warn!(%error, "MATCHLOCK_LOG is not used");
    }
}

/// A path that means the same in every directory: it is used by an owner in another one, perhaps much later.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::io(path.display().to_string(), error))
}

fn directory(variable: &str, default: impl FnOnce(PathBuf) -> PathBuf) -> Result<PathBuf, Failure> {
    let path = match (set(variable), set("HOME")) {
        (Some(path), _) => absolute(Path::new(&path))?,
        (None, Some(home)) => default(PathBuf::from(home)),
        (None, None) => return Err(Failure::usage(format!("neither {variable} nor HOME is set"))),
    };
    // Records name files in it, and they are text.
    if path.to_str().is_none() {
        let message = format!("{} is not UTF-8: set {variable} to a path that is", path.display());
        return Err(Failure::usage(message));
    }
    Ok(path)
}

/// What a variable says; one that is empty says nothing.
pub(crate) fn set(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

/// Makes room for as many descriptors as a program usually may have, while this process has one thread:
/// whenever the kernel makes room for one of several threads, the thread waits for all CPUs
/// (`expand_fdtable` of `fs/file.c`), three timer ticks or more.
pub(crate) fn make_room_for_descriptors() {
    const ROOM: u64 = 1024;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(ROOM).min(ROOM);
    let last = i32::try_from(limit).unwrap_or_default() - 1;
    // Without it everything works, a little later.
    let _ = fcntl_dupfd_cloexec(rustix::stdio::stderr(), last);
}

/// Keeps this process, and those that it starts, from being written to disk when they crash: they
/// hold what users gave their sandboxes, secrets too.
pub(crate) fn forbid_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        // Lowering a limit needs no right.
        output::say(&format!("matchlock: cannot turn core dumps off: {error}"));
    }
}
