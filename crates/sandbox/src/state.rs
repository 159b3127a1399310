//! The state database: which sandboxes there are, what became of them, and what they hold on the
//! host.
//!
//! It only records. Whether a sandbox's owner lives is the lock of its directory ([`crate::home`]),
//! and releasing what it holds is up to whoever reads the record. Every change is one immediate
//! transaction, so many processes can use the database at once; each counts up the version of the
//! sandbox it concerns. Rows are read out before a function returns: no cursor stays open.
//!
//! A damaged database is reported and copied, never made anew unless asked to: see
//! [`State::rebuild`].

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Transaction, TransactionBehavior};

mod crash;
mod damage;
mod error;
mod file;
mod find;
mod phase;
mod record;
mod resource;
mod schema;
#[cfg(test)]
mod tests;

pub use error::{FindError, StateError};
pub use record::{NewSandbox, Record};
pub use resource::{Holding, ResourceKey};

use damage::DatabaseFile;
use error::Fault;
use schema::MIGRATIONS;

/// The database's file in the state directory.
pub const FILE_NAME: &str = "state.db";

/// An open state database. Its functions wait for the disk and, for at most ten seconds, for other
/// processes.
#[derive(Debug)]
pub struct State {
    connection: Mutex<Connection>,
    file: DatabaseFile,
    clock: fn() -> i64,
}

/// What a database is opened with; tests use other than [`PROGRAM`].
#[derive(Clone, Copy)]
struct Setup {
    /// The steps that lead to the newest schema.
    migrations: &'static [&'static str],
    /// Milliseconds since 1970.
    clock: fn() -> i64,
}

const PROGRAM: Setup = Setup { migrations: MIGRATIONS, clock: now };

impl State {
    /// Opens the database at `path`, and makes it, private to the user, if there is none. The
    /// directory must be there.
    ///
    /// # Errors
    /// When it is damaged, written by a newer program, or cannot be made or read.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        Self::open_with(path, PROGRAM)
    }

    /// Moves a damaged database at `path` aside and makes a new, empty one. Tells where the damaged
    /// one is now; `None` if it was sound, or there was none, and nothing had to be moved.
    ///
    /// A process that has the damaged database open goes on writing to the file that was moved.
    ///
    /// # Errors
    /// When files cannot be moved or made, or the database was written by a newer program.
    pub fn rebuild(path: &Path) -> Result<(Self, Option<PathBuf>), StateError> {
        let mut moved = None;
        loop {
            let file = DatabaseFile::at(path);
            match Self::open(path).and_then(|state| state.verify().map(|()| state)) {
                Ok(state) => return Ok((state, moved)),
                // A new one that is damaged, too, is not the database's fault.
                Err(StateError::Corrupt { .. }) if moved.is_none() => {}
                Err(error) => return Err(error),
            }
            let _lock = file::lock_directory(path)?;
            // Another process may have moved it since, and what is there now is sound.
            if file.is_in_place() {
                moved = Some(damage::move_aside(path)?);
            }
        }
    }

    fn open_with(path: &Path, setup: Setup) -> Result<Self, StateError> {
        loop {
            if let Some(state) = Self::open_existing_with(path, setup)? {
                return Ok(state);
            }
            let made = file::create(path, setup.migrations);
            made.map_err(|fault| fault.of(&DatabaseFile::at(path)))?;
        }
    }

    fn open_existing_with(path: &Path, setup: Setup) -> Result<Option<Self>, StateError> {
        // SQLite opens the log by its name, and later than the database. Nobody may put others in
        // their place in between.
        let lock = file::share_directory(path)?;
        let Some(lock) = lock else { return Ok(None) };
        let file = DatabaseFile::at(path);
        let opened = file::connect_checked(path).and_then(|connection| {
            let Some(mut connection) = connection else { return Ok(None) };
            schema::migrate(&mut connection, path, setup.migrations)?;
            Ok(Some(connection))
        });
        drop(lock);
        let opened = opened.and_then(|connection| {
            connection.as_ref().map_or(Ok(()), |connection| file::use_wal(connection, path))?;
            Ok(connection)
        });
        let connection = opened.map_err(|fault| fault.of(&file))?;
        Ok(connection.map(|connection| Self { connection: Mutex::new(connection), file, clock: setup.clock }))
    }

    /// Reads in one snapshot.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, StateError> {
        let connection = self.connection();
        let snapshot = Transaction::new_unchecked(&connection, TransactionBehavior::Deferred);
        snapshot
            .map_err(Fault::from)
            .and_then(|snapshot| work(&snapshot))
            .map_err(|fault| fault.of(&self.file))
    }

    /// Changes in one transaction, which is undone if `work` fails. It takes the write lock before
    /// it reads, so what `work` has read still holds when it writes. `work` is told the time.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>, i64) -> Result<T, Fault>,
    ) -> Result<T, StateError> {
        crash::point();
        let now = (self.clock)();
        let done = self
            .connection()
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(Fault::from)
            .and_then(|transaction| {
                let value = work(&transaction, now)?;
                transaction.commit()?;
                Ok(value)
            })
            .map_err(|fault| fault.of(&self.file));
        crash::point();
        done
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all of it can be read.
    fn verify(&self) -> Result<(), StateError> {
        self.read(|connection| {
            file::check(connection)?;
            for record in record::all(connection)? {
                phase::history(connection, record.id)?;
                resource::holdings(connection, record.id)?;
            }
            Ok(())
        })
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
