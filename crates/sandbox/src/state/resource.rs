//! What sandboxes hold on the host, written down before it is made: whatever a dead owner has left
//! behind is on its list.

use api::SandboxId;
use api::lifecycle::Resource;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

use super::State;
use super::error::{Fault, StateError};
use super::record::{existing, parsed, touch};

/// Which resource; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResourceKey(i64);

/// A resource that a sandbox holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Its key.
    pub key: ResourceKey,
    /// What it is, or is going to be: its owner may have died before it was made.
    pub resource: Resource,
}

impl State {
    /// Writes down a resource that is about to be made.
    ///
    /// # Errors
    /// When the sandbox is not recorded.
    pub fn plan(&self, id: SandboxId, resource: &Resource) -> Result<ResourceKey, StateError> {
        self.write(|transaction, now| add(transaction, now, id, resource))
    }

    /// Strikes out a resource that is gone. One that was struck out before is gone all the same.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn released(&self, key: ResourceKey) -> Result<(), StateError> {
        self.write(|transaction, now| {
            if let Some(holder) = holder(transaction, key)? {
                touch(transaction, holder, now)?;
                transaction.execute("DELETE FROM resources WHERE seq = ?1", [key.0])?;
            }
            Ok(())
        })
    }

    /// What a sandbox holds, in the order in which it was written down. Releasing goes backwards.
    ///
    /// # Errors
    /// When the sandbox is not recorded.
    pub fn resources(&self, id: SandboxId) -> Result<Vec<Holding>, StateError> {
        self.read(|connection| {
            existing(connection, id)?;
            holdings(connection, id)
        })
    }
}

/// What a sandbox holds, in order.
pub(super) fn holdings(connection: &Connection, id: SandboxId) -> Result<Vec<Holding>, Fault> {
    let mut statement =
        connection.prepare("SELECT seq, resource FROM resources WHERE sandbox = ?1 ORDER BY seq")?;
    let holdings = statement.query_map([id.to_string()], read)?;
    Ok(holdings.collect::<Result<_, _>>()?)
}

/// How many resources a sandbox holds.
pub(super) fn count(connection: &Connection, id: SandboxId) -> Result<usize, Fault> {
    let count: i64 = connection.query_row(
        "SELECT count(*) FROM resources WHERE sandbox = ?1",
        [id.to_string()],
        |row| row.get(0),
    )?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

fn add(
    transaction: &Transaction<'_>,
    now: i64,
    id: SandboxId,
    resource: &Resource,
) -> Result<ResourceKey, Fault> {
    touch(transaction, id, now)?;
    let resource = serde_json::to_string(resource)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    transaction
        .execute("INSERT INTO resources (sandbox, resource) VALUES (?1, ?2)", (id.to_string(), resource))?;
    Ok(ResourceKey(transaction.last_insert_rowid()))
}

/// Whose a resource is.
fn holder(connection: &Connection, key: ResourceKey) -> Result<Option<SandboxId>, Fault> {
    let query = "SELECT sandbox FROM resources WHERE seq = ?1";
    Ok(connection.query_row(query, [key.0], |row| parsed(row, "sandbox")).optional()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Holding> {
    let resource: String = row.get("resource")?;
    let damaged =
        |error: serde_json::Error| rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(error));
    Ok(Holding {
        key: ResourceKey(row.get("seq")?),
        resource: serde_json::from_str(&resource).map_err(damaged)?,
    })
}
