//! The record of each sandbox.

use std::str::FromStr;

use api::lifecycle::Phase;
use api::{SandboxId, SandboxName};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, named_params};

use super::State;
use super::error::{Fault, StateError};
use super::phase;

/// A sandbox to be recorded. It begins as [`Phase::Creating`].
#[derive(Debug, Clone)]
pub struct NewSandbox {
    /// Its ID.
    pub id: SandboxId,
    /// What the user calls it.
    pub name: Option<SandboxName>,
    /// The image, as the user said it.
    pub image: String,
    /// The backend that runs it.
    pub backend: String,
    /// Whether it stays when its command ends (`--rm=false`).
    pub keep: bool,
    /// Its specification as JSON, without secrets: it is stored and shown as it is.
    pub spec: String,
    /// The process that owns it.
    pub owner_pid: Option<u32>,
}

/// What is recorded of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its ID.
    pub id: SandboxId,
    /// What the user calls it.
    pub name: Option<SandboxName>,
    /// The image, as the user said it.
    pub image: String,
    /// The backend that runs it.
    pub backend: String,
    /// Whether it stays when its command ends (`--rm=false`).
    pub keep: bool,
    /// Its specification as JSON, as it was given.
    pub spec: String,
    /// The process that owns it, to be shown: whether that lives is the sandbox's lock.
    pub owner_pid: Option<u32>,
    /// How its command ended, as `run` reports it.
    pub exit_code: Option<i32>,
    /// The note of its last failure since it was last tried to create or start it.
    pub last_error: Option<String>,
    /// Where it is in its life.
    pub phase: Phase,
    /// Rises with each change of the sandbox or of what it holds.
    pub version: i64,
    /// When it was recorded, in milliseconds since 1970.
    pub created_at: i64,
    /// When it last changed, in milliseconds since 1970.
    pub updated_at: i64,
}

const COLUMNS: &str = "id, name, image, backend, keep, spec, owner_pid, exit_code, last_error, phase, \
                       version, created_at, updated_at";

impl State {
    /// Records a new sandbox, before anything of it is made.
    ///
    /// # Errors
    /// When its ID or name is taken.
    pub fn insert(&self, new: &NewSandbox) -> Result<Record, StateError> {
        self.write(|transaction, now| {
            if find(transaction, new.id)?.is_some() {
                return Err(StateError::IdTaken(new.id).into());
            }
            reserve(transaction, new.name.as_ref(), new.id)?;
            transaction.execute(
                "INSERT INTO sandboxes (id, name, image, backend, keep, spec, owner_pid, phase, version, \
                 created_at, updated_at) VALUES (:id, :name, :image, :backend, :keep, :spec, :owner, :phase, \
                 1, :now, :now)",
                named_params! {
                    ":id": new.id.to_string(),
                    ":name": new.name.as_ref().map(SandboxName::as_str),
                    ":image": new.image,
                    ":backend": new.backend,
                    ":keep": new.keep,
                    ":spec": new.spec,
                    ":owner": new.owner_pid,
                    ":phase": Phase::Creating.as_str(),
                    ":now": now,
                },
            )?;
            phase::append(transaction, new.id, now, None, Phase::Creating, None)?;
            existing(transaction, new.id)
        })
    }

    /// All sandboxes, in the order in which they were recorded.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn list(&self) -> Result<Vec<Record>, StateError> {
        self.read(all)
    }

    /// One sandbox.
    ///
    /// # Errors
    /// When it is not recorded.
    pub fn record(&self, id: SandboxId) -> Result<Record, StateError> {
        self.read(|connection| existing(connection, id))
    }

    /// Records whose process owns a sandbox now.
    ///
    /// # Errors
    /// When the sandbox is not recorded.
    pub fn set_owner(&self, id: SandboxId, pid: Option<u32>) -> Result<(), StateError> {
        self.write(|transaction, now| {
            touch(transaction, id, now)?;
            transaction
                .execute("UPDATE sandboxes SET owner_pid = ?2 WHERE id = ?1", (id.to_string(), pid))?;
            Ok(())
        })
    }

    /// Records which VMM runs a sandbox.
    ///
    /// # Errors
    /// When the sandbox is not recorded.
    pub fn set_backend(&self, id: SandboxId, backend: &str) -> Result<(), StateError> {
        self.write(|transaction, now| {
            touch(transaction, id, now)?;
            transaction
                .execute("UPDATE sandboxes SET backend = ?2 WHERE id = ?1", (id.to_string(), backend))?;
            Ok(())
        })
    }

    /// Records how a sandbox's command ended.
    ///
    /// # Errors
    /// When the sandbox is not recorded.
    pub fn set_exit_code(&self, id: SandboxId, code: i32) -> Result<(), StateError> {
        self.write(|transaction, now| {
            touch(transaction, id, now)?;
            transaction
                .execute("UPDATE sandboxes SET exit_code = ?2 WHERE id = ?1", (id.to_string(), code))?;
            Ok(())
        })
    }

    /// Deletes a sandbox's record, with its history.
    ///
    /// # Errors
    /// When it is not cleaned: what it holds on the host would be lost sight of.
    pub fn forget(&self, id: SandboxId) -> Result<(), StateError> {
        self.write(|transaction, _| {
            let phase = existing(transaction, id)?.phase;
            if phase != Phase::Cleaned {
                return Err(StateError::NotCleaned { id, phase }.into());
            }
            // What refers to it goes with it.
            transaction.execute("DELETE FROM sandboxes WHERE id = ?1", [id.to_string()])?;
            Ok(())
        })
    }
}

/// All records, in the order in which they were made.
pub(super) fn all(connection: &Connection) -> Result<Vec<Record>, Fault> {
    select(connection, "ORDER BY seq", &[])
}

/// The records for which `rest` of the query holds.
pub(super) fn select(connection: &Connection, rest: &str, parameters: &[&str]) -> Result<Vec<Record>, Fault> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM sandboxes {rest}"))?;
    let rows = statement.query_map(rusqlite::params_from_iter(parameters), read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The record of a sandbox.
pub(super) fn existing(connection: &Connection, id: SandboxId) -> Result<Record, Fault> {
    find(connection, id)?.ok_or_else(|| StateError::NotFound(id).into())
}

/// Counts up a sandbox's version.
pub(super) fn touch(transaction: &Transaction<'_>, id: SandboxId, now: i64) -> Result<(), Fault> {
    let changed = transaction.execute(
        "UPDATE sandboxes SET version = version + 1, updated_at = ?2 WHERE id = ?1",
        (id.to_string(), now),
    )?;
    if changed == 0 { Err(StateError::NotFound(id).into()) } else { Ok(()) }
}

/// Reads a column whose text is one of ours.
pub(super) fn parsed<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    parsed_option(row, column)?
        .ok_or_else(|| rusqlite::Error::InvalidColumnType(usize::MAX, column.to_owned(), Type::Null))
}

/// Reads a column whose text is one of ours, or that has none.
pub(super) fn parsed_option<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let index = row.as_ref().column_index(column)?;
    let text: Option<String> = row.get(index)?;
    let damaged =
        |error: T::Err| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error));
    text.map(|text| text.parse().map_err(damaged)).transpose()
}

fn find(connection: &Connection, id: SandboxId) -> Result<Option<Record>, Fault> {
    Ok(select(connection, "WHERE id = ?1", &[&id.to_string()])?.pop())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        id: parsed(row, "id")?,
        name: parsed_option(row, "name")?,
        image: row.get("image")?,
        backend: row.get("backend")?,
        keep: row.get("keep")?,
        spec: row.get("spec")?,
        owner_pid: row.get("owner_pid")?,
        exit_code: row.get("exit_code")?,
        last_error: row.get("last_error")?,
        phase: parsed(row, "phase")?,
        version: row.get("version")?,
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

/// Makes sure that a name is free for the sandbox `id`.
fn reserve(transaction: &Transaction<'_>, name: Option<&SandboxName>, id: SandboxId) -> Result<(), Fault> {
    let Some(name) = name else { return Ok(()) };
    let holder = transaction
        .query_row("SELECT id FROM sandboxes WHERE name = ?1", [name.as_str()], |row| parsed(row, "id"))
        .optional()?;
    match holder {
        Some(holder) if holder != id => Err(StateError::NameTaken { name: name.clone(), holder }.into()),
        _ => Ok(()),
    }
}
