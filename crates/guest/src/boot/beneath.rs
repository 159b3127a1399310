//! Paths in a root that belongs to a hostile image.
//!
//! An image may have a symbolic link, a file or nothing where the sandbox needs a directory or a
//! file of its own. Links are never followed out of the root, and for the kernel's file systems not
//! at all: whatever is there and is no directory is replaced in the overlay.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, symlinkat, unlinkat};
use rustix::io::Errno;

/// The directory `name` directly below `root`, made with `mode` if it is missing. A symbolic link or
/// anything else of that name is removed first.
pub(crate) fn directory(root: impl AsFd, name: &str, mode: u32) -> io::Result<OwnedFd> {
    let open = || openat(&root, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {}
        Err(Errno::NOTDIR | Errno::LOOP) => unlinkat(&root, name, AtFlags::empty())?,
        opened => return Ok(opened?),
    }
    make(&root, name, mode)?;
    Ok(open()?)
}

/// The directory `name` below `root`, where links may lead to another place below `root` (some
/// images have their `/etc` elsewhere). A link that leads nowhere is replaced.
pub(crate) fn linked_directory(root: impl AsFd, name: &str, mode: u32) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, name, DIRECTORY, Mode::empty(), resolve) {
        Ok(opened) => Ok(opened),
        Err(_) => directory(root, name, mode),
    }
}

/// The directory at `path` below `root`, made with `mode` as far as it is missing. Links lead to other
/// places below `root`, as they will for commands; nothing that is there is replaced, because what is
/// there may be the user's own.
pub(crate) fn deep_directory(root: impl AsFd, path: &str, mode: u32) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |path: &str| openat2(&root, path, DIRECTORY, Mode::empty(), resolve);
    let mut found = open(".")?;
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    for end in ends.filter(|end| *end > 0) {
        // From the root each time, since that is where links start from.
        found = match open(&path[..end]) {
            Err(Errno::NOENT) => {
                let name = path[..end].rsplit('/').next().unwrap_or_default();
                make(&found, name, mode)?;
                open(&path[..end])?
            }
            opened => opened?,
        };
    }
    Ok(found)
}

/// Makes `name` in `directory` a file of `contents` that everybody may read, in place of whatever had
/// that name.
pub(crate) fn replace_file(directory: impl AsFd, name: &str, contents: &[u8]) -> io::Result<()> {
    match unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&directory, name, new, Mode::from_raw_mode(0o644))?;
    File::from(file).write_all(contents)
}

/// Makes `name` in `directory` a symbolic link to `target`, in place of whatever had that name.
pub(crate) fn replace_link(directory: impl AsFd, name: &str, target: &str) -> io::Result<()> {
    match unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(symlinkat(target, directory, name)?)
}

/// What is at `path` below `root`, where links may lead to other places below `root`; not waited for if it
/// is a pipe.
pub(crate) fn existing_file(root: impl AsFd, path: &str, mode: OFlags) -> io::Result<File> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = mode | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    Ok(openat2(root, path, flags, Mode::empty(), resolve)?.into())
}

/// Some names in the directory at `path` below `root`, at most this many, without those that are not text.
pub(crate) fn names(root: impl AsFd, path: &str, most: usize) -> io::Result<Vec<String>> {
    let directory = existing_file(root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut names = Vec::new();
    for entry in Dir::new(directory)?.take(most) {
        let entry = entry?;
        let name = entry.file_name().to_str().ok().filter(|name| !matches!(*name, "." | ".."));
        names.extend(name.map(str::to_owned));
    }
    Ok(names)
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// `mkdirat(2)` with a mode that the umask does not change.
fn make(root: impl AsFd, name: &str, mode: u32) -> io::Result<()> {
    mkdirat(&root, name, Mode::from_raw_mode(mode))?;
    rustix::fs::chmodat(&root, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    Ok(())
}

#[cfg(test)]
mod tests;
