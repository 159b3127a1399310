//! Moving a sandbox from phase to phase, and the history that this leaves.

use api::SandboxId;
use api::lifecycle::{HistoryEntry, Phase};
use rusqlite::{Connection, Row, Transaction};

use super::State;
use super::error::{Fault, StateError};
use super::record::{existing, parsed, parsed_option, touch};
use super::resource;

impl State {
    /// Moves a sandbox to another phase and writes that down in its history. The note of a failure
    /// is its last error until it is created or started again.
    ///
    /// Moving it to where it is already is an error too, apart from stopping and cleaning, which
    /// another process may take up again: of two processes that want to start it, one does.
    ///
    /// # Errors
    /// When [`Phase::may_become`] forbids it, or it would be cleaned but still holds something.
    pub fn advance(&self, id: SandboxId, to: Phase, note: Option<&str>) -> Result<(), StateError> {
        self.write(|transaction, now| {
            let record = existing(transaction, id)?;
            let from = record.phase;
            if !from.may_become(to) {
                return Err(StateError::Transition { id, from, to }.into());
            }
            if to == Phase::Cleaned {
                let count = resource::count(transaction, id)?;
                if count > 0 {
                    return Err(StateError::Holds { id, count }.into());
                }
            }
            let last_error = match to {
                Phase::Creating | Phase::Starting => None,
                _ if to.is_failure() => note,
                _ => record.last_error.as_deref(),
            };
            touch(transaction, id, now)?;
            transaction.execute(
                // How its command ended before is no news of the one that is about to run.
                "UPDATE sandboxes SET phase = ?2, last_error = ?3, exit_code = iif(?4, NULL, exit_code) WHERE id = ?1",
                (id.to_string(), to.as_str(), last_error, to == Phase::Starting),
            )?;
            append(transaction, id, now, Some(from), to, note)
        })
    }

    /// Writes down what went wrong with a sandbox beside its phases: its VM died, its owner did.
    ///
    /// # Errors
    /// When the sandbox is not recorded.
    pub fn blame(&self, id: SandboxId, error: &str) -> Result<(), StateError> {
        self.write(|transaction, now| {
            touch(transaction, id, now)?;
            transaction
                .execute("UPDATE sandboxes SET last_error = ?2 WHERE id = ?1", (id.to_string(), error))?;
            Ok(())
        })
    }

    /// What became of a sandbox, in order.
    ///
    /// # Errors
    /// When the sandbox is not recorded.
    pub fn history(&self, id: SandboxId) -> Result<Vec<HistoryEntry>, StateError> {
        self.read(|connection| {
            existing(connection, id)?;
            history(connection, id)
        })
    }
}

/// A sandbox's history, in order.
pub(super) fn history(connection: &Connection, id: SandboxId) -> Result<Vec<HistoryEntry>, Fault> {
    let mut statement = connection
        .prepare("SELECT seq, at, from_phase, to_phase, note FROM history WHERE sandbox = ?1 ORDER BY seq")?;
    let entries = statement.query_map([id.to_string()], read)?;
    Ok(entries.collect::<Result<_, _>>()?)
}

/// Adds an entry to a sandbox's history.
pub(super) fn append(
    transaction: &Transaction<'_>,
    id: SandboxId,
    at: i64,
    from: Option<Phase>,
    to: Phase,
    note: Option<&str>,
) -> Result<(), Fault> {
    transaction.execute(
        "INSERT INTO history (sandbox, at, from_phase, to_phase, note) VALUES (?1, ?2, ?3, ?4, ?5)",
        (id.to_string(), at, from.map(Phase::as_str), to.as_str(), note),
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<HistoryEntry> {
    Ok(HistoryEntry {
        seq: row.get("seq")?,
        at: row.get("at")?,
        from: parsed_option(row, "from_phase")?,
        to: parsed(row, "to_phase")?,
        note: row.get("note")?,
    })
}
