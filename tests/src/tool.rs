//! Programs that the tests use and `scripts/setup --dev` installs.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The user's own cache: kernels and tools are taken from it, nothing else is touched.
#[must_use]
pub fn user_cache() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("MATCHLOCK_CACHE")
        .or_else(|| set("HOME").map(|home| home.join(".cache/matchlock")))
        .expect("neither MATCHLOCK_CACHE nor HOME is set")
}

/// The root of the source tree.
#[must_use]
pub fn source_tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the source tree")
}

/// The path of `program`, from `PATH` or from where `scripts/setup --dev` puts it.
///
/// # Panics
/// When it is missing.
#[must_use]
pub fn find(program: &str) -> PathBuf {
    let path = search_path();
    let found = env::split_paths(&path)
        .find_map(|directory| Some(directory.join(program)).filter(|path| path.is_file()));
    found.unwrap_or_else(|| panic!("{program} is missing: run scripts/setup --dev"))
}

/// `PATH`, and where `scripts/setup --dev` puts programs.
///
/// # Panics
/// When the cache's path has a colon.
#[must_use]
pub fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain([user_cache().join("tools/bin")]);
    env::join_paths(directories).expect("the cache's path has no colon")
}
