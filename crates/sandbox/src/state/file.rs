//! The database's file: connecting to it, making it, and the lock for what only one process at a
//! time may do to it as a whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::{Fault, StateError};
use super::{damage, schema};

/// How long to wait for other processes. A transaction takes well under a millisecond, so this is
/// for a host that stands still, not for a queue.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to the database at `path`, which must be there.
pub(super) fn connect(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    // Without a sync at each commit: after a power loss the last changes may be missing, but so is
    // every process they were about, and the database is whole.
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;")?;
    Ok(connection)
}

/// Connects to the database at `path` if there is one, unless the files alone tell of damage.
pub(super) fn connect_checked(path: &Path) -> Result<Option<Connection>, Fault> {
    match fs::metadata(path) {
        // A new database would take the log for its own.
        Err(error) if error.kind() == io::ErrorKind::NotFound && damage::has_log(path) => {
            Err(Fault::Damaged("the database is gone, its log is there"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error).into()),
        // It came to its place with its tables in it.
        Ok(metadata) if metadata.len() == 0 => Err(Fault::Damaged("the file is empty")),
        Ok(_) => connect(path).map(Some),
    }
}

/// Makes sure that readers and writers do not block each other. The database is made so; one that
/// the user put back from a backup is not.
pub(super) fn use_wal(connection: &Connection, path: &Path) -> Result<(), Fault> {
    let mode: String = connection.query_row("PRAGMA journal_mode", (), |row| row.get(0))?;
    if mode != "wal" {
        let _lock = lock_directory(path)?;
        set_wal(connection)?;
    }
    Ok(())
}

fn set_wal(connection: &Connection) -> Result<(), Fault> {
    Ok(connection.query_row("PRAGMA journal_mode = WAL", (), |_| Ok(()))?)
}

/// Makes the database at `path`, if no other process has.
///
/// It is made under another name and comes to its own with its tables in it, so an empty file under
/// its name is damage, and no crash leaves half a database.
pub(super) fn create(path: &Path, migrations: &[&str]) -> Result<(), Fault> {
    let _lock = lock_directory(path)?;
    if path.exists() {
        return Ok(());
    }
    let new = beside(path, ".new");
    for leftover in [new.clone(), beside(&new, "-journal"), beside(&new, "-wal"), beside(&new, "-shm")] {
        remove(&leftover)?;
    }
    make_private(&new)?;
    let mut connection = connect(&new)?;
    schema::build(&mut connection, migrations)?;
    set_wal(&connection)?;
    connection.close().map_err(|(_, error)| error)?;
    fs::rename(&new, path).map_err(failed("make", path))?;
    Ok(())
}

/// Reads every page.
pub(super) fn check(connection: &Connection) -> Result<(), Fault> {
    let found: String = connection.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(Fault::Damaged("its pages contradict each other")) }
}

/// Keeps other processes from making, copying or moving the database, until dropped; `None` if
/// there is not even the directory. May be held by many.
pub(super) fn share_directory(path: &Path) -> Result<Option<File>, StateError> {
    let directory = directory(path);
    let lock = match File::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("open", directory))?,
    };
    lock.lock_shared().map_err(failed("lock", directory))?;
    Ok(Some(lock))
}

/// Keeps other processes from opening, making, copying or moving the database, until dropped.
pub(super) fn lock_directory(path: &Path) -> Result<File, StateError> {
    let directory = directory(path);
    let lock = File::open(directory).map_err(failed("open", directory))?;
    lock.lock().map_err(failed("lock", directory))?;
    Ok(lock)
}

/// The directory `path` is in.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes an empty file that only the user can read. SQLite gives the files beside a database the
/// database's own mode.
pub(super) fn make_private(path: &Path) -> Result<File, StateError> {
    File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed("make", path))
}

/// Removes a file if it is there.
pub(super) fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The path with `suffix` added to its last component.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Makes the error of a failed step on `path`.
pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    move |source| StateError::File { action, path: path.to_owned(), source }
}
