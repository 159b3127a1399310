//! What is done with a damaged database: a copy when the damage is noticed, moving it aside when
//! the user asks for a new one. Its write-ahead log belongs to it and goes along.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::StateError;
use super::file::{beside, directory, failed, lock_directory, make_private, remove};

/// Copies that are kept at most. Processes that get past the damage change the file, so each that
/// does not could make another copy, until the disk is full.
const MAX_COPIES: usize = 8;

/// SQLite's write-ahead log is the database's path with this added.
const LOG: &str = "-wal";

/// The file that was opened as the database. Another may have its name by now.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    inode: Option<u64>,
    /// The copy made when damage was first noticed, so that it is made once.
    saved: OnceLock<Option<PathBuf>>,
}

impl DatabaseFile {
    /// The file that is at `path` now.
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), inode: inode(path), saved: OnceLock::new() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it still has its name.
    pub(super) fn is_in_place(&self) -> bool {
        inode(&self.path) == self.inode
    }

    /// Copies it, since it is damaged, to `state.db.corrupt-<unix time>` beside it, unless the same
    /// is there already, and says where the copy is. `None` if it could not be made: what was
    /// noticed is reported all the same.
    ///
    /// Closing the file after reading it drops the locks that other connections of this process
    /// have on it (POSIX); of a damaged database nothing can be lost by that.
    pub(super) fn save(&self) -> Option<PathBuf> {
        let save = || {
            let _lock = lock_directory(&self.path)?;
            if self.is_in_place() { copy(&self.path) } else { self.moved() }
        };
        let report = |error: &StateError| {
            tracing::warn!(path = %self.path.display(), %error, "a damaged database was not copied");
        };
        self.saved.get_or_init(|| save().inspect_err(report).ok().flatten()).clone()
    }

    /// Where it is after another process has moved it aside.
    fn moved(&self) -> Result<Option<PathBuf>, StateError> {
        let copies = copies(&self.path)?;
        Ok(copies.into_iter().find(|copy| inode(copy).is_some() && inode(copy) == self.inode))
    }
}

/// Moves the damaged database at `path` to where its copy is or would be. The caller holds the lock
/// of its directory.
pub(super) fn move_aside(path: &Path) -> Result<PathBuf, StateError> {
    let copies = copies(path)?;
    let target = match copies.iter().find(|copy| is_copy(copy, path)) {
        Some(copy) => copy.clone(),
        None => unused(path),
    };
    // The database first: if this goes no further, its log tells that it is gone.
    for suffix in ["", LOG] {
        let (from, to) = (beside(path, suffix), beside(&target, suffix));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("move", &from)(error));
            }
            _ => {}
        }
    }
    remove(&beside(path, "-shm"))?;
    Ok(main_file(&target))
}

/// Whether there is a log of the database at `path`.
pub(super) fn has_log(path: &Path) -> bool {
    length(&beside(path, LOG)).is_some()
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

fn copy(path: &Path) -> Result<Option<PathBuf>, StateError> {
    let copies = copies(path)?;
    if let Some(copy) = copies.iter().find(|copy| is_copy(copy, path)) {
        return Ok(Some(main_file(copy)));
    }
    if copies.len() >= MAX_COPIES {
        return Ok(None);
    }
    let target = unused(path);
    // The log first: a copy under its own name is a whole one.
    for suffix in [LOG, ""] {
        let from = beside(path, suffix);
        if suffix == LOG && !has_log(path) {
            continue;
        }
        let mut source = match File::open(&from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(failed("open", &from))?,
        };
        let to = beside(&target, suffix);
        let part = beside(&to, ".part");
        remove(&part)?;
        io::copy(&mut source, &mut make_private(&part)?).map_err(failed("write", &part))?;
        fs::rename(&part, &to).map_err(failed("make", &to))?;
    }
    Ok(Some(main_file(&target)))
}

/// What to call a copy: the database, or the log where that was all there was.
fn main_file(copy: &Path) -> PathBuf {
    if copy.exists() { copy.to_owned() } else { beside(copy, LOG) }
}

/// The copies there are, each by the name of its database.
fn copies(path: &Path) -> Result<Vec<PathBuf>, StateError> {
    let directory = directory(path);
    let entries = fs::read_dir(directory).map_err(failed("read", directory))?;
    let prefix = beside(path, MARK);
    let prefix = prefix.file_name().unwrap_or_default();
    let mut copies = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_bytes().strip_suffix(LOG.as_bytes()).unwrap_or(name.as_bytes());
        let seconds = name.strip_prefix(prefix.as_bytes()).unwrap_or_default();
        if !seconds.is_empty() && seconds.iter().all(u8::is_ascii_digit) {
            copies.push(path.with_file_name(OsStr::from_bytes(name)));
        }
    }
    copies.sort();
    copies.dedup();
    Ok(copies)
}

/// The name for a copy made now.
fn unused(path: &Path) -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut names = (now..).map(|seconds| beside(path, &format!("{MARK}{seconds}")));
    let free = |name: &PathBuf| !name.exists() && !beside(name, LOG).exists();
    names.find(free).expect("there are more seconds than files")
}

/// Whether the files at `copy` have the bytes of those at `path`.
fn is_copy(copy: &Path, path: &Path) -> bool {
    ["", LOG].into_iter().all(|suffix| {
        let (ours, theirs) = (beside(copy, suffix), beside(path, suffix));
        length(&ours) == length(&theirs)
            && (length(&ours).is_none() || fs::read(&ours).ok() == fs::read(&theirs).ok())
    })
}

/// Length of a file that has one: an open connection leaves an empty log, which says nothing.
fn length(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.len()).filter(|length| *length > 0)
}

const MARK: &str = ".corrupt-";
