//! The tables, as the steps that lead to them, and the way from an older version to this one.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::error::{Fault, StateError};
use super::{crash, file};

/// The steps, each from one version to the next; the first makes version 1. A step that was
/// released is never changed. A step may only add: older programs may still have the database open
/// and go on with the tables they know.
pub(super) const MIGRATIONS: &[&str] = &[VERSION_1];

/// Order is by `seq` everywhere, never by time. History is only added to: an entry goes when its
/// sandbox is forgotten, and not before.
const VERSION_1: &str = "
    CREATE TABLE sandboxes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        name TEXT UNIQUE,
        image TEXT NOT NULL,
        backend TEXT NOT NULL,
        keep INTEGER NOT NULL,
        spec TEXT NOT NULL,
        owner_pid INTEGER,
        exit_code INTEGER,
        last_error TEXT,
        phase TEXT NOT NULL,
        version INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE history (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        sandbox TEXT NOT NULL REFERENCES sandboxes (id) ON DELETE CASCADE,
        at INTEGER NOT NULL,
        from_phase TEXT,
        to_phase TEXT NOT NULL,
        note TEXT
    ) STRICT;
    CREATE INDEX history_of_sandbox ON history (sandbox, seq);
    CREATE TRIGGER history_is_not_changed BEFORE UPDATE ON history BEGIN
        SELECT RAISE(ABORT, 'history is append-only');
    END;
    CREATE TRIGGER history_is_not_removed BEFORE DELETE ON history
    WHEN EXISTS (SELECT 1 FROM sandboxes WHERE id = OLD.sandbox) BEGIN
        SELECT RAISE(ABORT, 'history is append-only');
    END;
    CREATE TABLE resources (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        sandbox TEXT NOT NULL REFERENCES sandboxes (id) ON DELETE CASCADE,
        resource TEXT NOT NULL
    ) STRICT;
    CREATE INDEX resources_of_sandbox ON resources (sandbox, seq);
";

/// Makes the tables in an empty database.
pub(super) fn build(connection: &mut Connection, migrations: &[&str]) -> Result<(), Fault> {
    crash::point();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    take_steps(&transaction, migrations, 0)?;
    transaction.commit()?;
    crash::point();
    Ok(())
}

/// Brings the database at `path` to the newest version, all steps or none, after a backup.
pub(super) fn migrate(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), Fault> {
    if version(connection, path, migrations)? == migrations.len() {
        return Ok(());
    }
    crash::point();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Under the lock nobody else can migrate it, but somebody may have.
    let version = version(&transaction, path, migrations)?;
    if version < migrations.len() {
        back_up(path, version)?;
        take_steps(&transaction, migrations, version)?;
    }
    transaction.commit()?;
    crash::point();
    Ok(())
}

fn take_steps(transaction: &Transaction<'_>, migrations: &[&str], from: usize) -> Result<(), Fault> {
    for step in &migrations[from..] {
        transaction.execute_batch(step)?;
    }
    Ok(transaction.pragma_update(None, VERSION, newest(migrations))?)
}

/// How many of the steps the database has taken.
fn version(connection: &Connection, path: &Path, migrations: &[&str]) -> Result<usize, Fault> {
    let found: i64 = connection.pragma_query_value(None, VERSION, |row| row.get(0))?;
    let known = newest(migrations);
    match usize::try_from(found) {
        Err(_) | Ok(0) => Err(Fault::Damaged("it is a database, but not of this program")),
        Ok(_) if found > known => Err(StateError::Newer { path: path.to_owned(), found, known }.into()),
        Ok(version) => Ok(version),
    }
}

fn newest(migrations: &[&str]) -> i64 {
    i64::try_from(migrations.len()).expect("the steps are listed in this file")
}

/// Copies the database, which the caller has locked, to `state.db.v<N>.bak`.
fn back_up(path: &Path, version: usize) -> Result<(), Fault> {
    let backup = file::beside(path, &format!(".v{version}.bak"));
    // A backup under its own name is a whole one.
    let part = file::beside(&backup, ".part");
    file::remove(&part)?;
    let made = file::make_private(&part)?;
    // Readers see what was committed last, which the caller's lock keeps as it is. The path goes in
    // as bytes since a path need not be UTF-8.
    let name = std::os::unix::ffi::OsStrExt::as_bytes(part.as_os_str());
    file::connect(path)?.execute("VACUUM INTO CAST(?1 AS TEXT)", [name])?;
    made.sync_all().map_err(file::failed("write", &part))?;
    fs::rename(&part, &backup).map_err(file::failed("make", &backup))?;
    Ok(())
}

const VERSION: &str = "user_version";
