//! Databases of older and newer programs.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;

use api::{Explain as _, Kind};
use rusqlite::Connection;

use super::super::{MIGRATIONS, PROGRAM, Setup, StateError};
use super::*;

const OLD: Setup = Setup { migrations: &[MIGRATIONS[0]], ..PROGRAM };
const NEW: Setup =
    Setup { migrations: &[MIGRATIONS[0], "ALTER TABLE sandboxes ADD COLUMN labels TEXT;"], ..PROGRAM };
const FAULTY: Setup = Setup {
    migrations: &[MIGRATIONS[0], "CREATE TABLE labels (x NOT NULL); INSERT INTO labels VALUES (NULL);"],
    ..PROGRAM
};

#[test]
fn an_older_database_is_backed_up_and_brought_up_to_date() {
    let (home, _) = home();
    // A backup has to work wherever a home directory may be.
    let directory = home.path().join(OsStr::from_bytes(b"\xff'\"home"));
    fs::create_dir(&directory).unwrap();
    let path = directory.join(FILE_NAME);
    let old = State::open_with(&path, OLD).unwrap();
    let record = old.insert(&sandbox(1)).unwrap();
    // The old program still has it open, as one that owns a sandbox would.
    let new = State::open_with(&path, NEW).unwrap();
    assert_eq!(new.list().unwrap(), std::slice::from_ref(&record));
    new.connection().prepare("SELECT labels FROM sandboxes").unwrap();
    old.advance(id(1), Phase::Created, None).unwrap();
    let backup = directory.join("state.db.v1.bak");
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    let backup = State::open_with(&backup, OLD).unwrap();
    assert_eq!(backup.list().unwrap(), [record]);
    drop(State::open_with(&path, NEW).unwrap());
    assert!(!directory.join("state.db.v2.bak").exists() && !directory.join("state.db.v1.bak.part").exists());
}

#[test]
fn a_new_database_needs_no_backup() {
    let (home, path) = home();
    drop(State::open_with(&path, NEW).unwrap());
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
}

#[test]
fn programs_that_migrate_at_once_do_it_once() {
    let (_home, path) = home();
    State::open_with(&path, OLD).unwrap().insert(&sandbox(1)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert_eq!(State::open_with(&path, NEW).unwrap().list().unwrap().len(), 1));
        }
    });
}

#[test]
fn a_migration_that_fails_leaves_the_database_as_it_was() {
    let (home, path) = home();
    State::open_with(&path, OLD).unwrap().insert(&sandbox(1)).unwrap();
    assert!(matches!(State::open_with(&path, FAULTY), Err(StateError::Query { .. })));
    let old = State::open_with(&path, OLD).unwrap();
    assert_eq!(old.list().unwrap().len(), 1);
    assert!(old.connection().prepare("SELECT * FROM labels").is_err());
    assert!(home.path().join("state.db.v1.bak").exists());
}

#[test]
fn a_newer_database_is_refused_and_left_alone() {
    let (home, path) = home();
    drop(State::open_with(&path, NEW).unwrap());
    let before = fs::read(&path).unwrap();
    for error in
        [State::open_with(&path, OLD).unwrap_err(), State::open_existing_with(&path, OLD).unwrap_err()]
    {
        assert!(matches!(error, StateError::Newer { found: 2, known: 1, .. }), "{error}");
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.hint().unwrap().contains("newer matchlock"));
    }
    let raw = Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    assert!(matches!(State::rebuild(&path), Err(StateError::Newer { .. })), "not even to rebuild it");
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
    assert_eq!(fs::read(&path).unwrap().len(), before.len());
}

#[test]
fn a_backup_put_back_by_hand_is_shared_again() {
    let (home, path) = home();
    State::open_with(&path, OLD).unwrap().insert(&sandbox(0)).unwrap();
    drop(State::open_with(&path, NEW).unwrap());
    fs::copy(home.path().join("state.db.v1.bak"), &path).unwrap();
    std::thread::scope(|scope| {
        for bits in 1..=16 {
            let path = &path;
            scope.spawn(move || State::open_with(path, NEW).unwrap().insert(&sandbox(bits)).unwrap());
        }
    });
    let state = State::open_with(&path, NEW).unwrap();
    let mode: String = state.connection().query_row("PRAGMA journal_mode", (), |row| row.get(0)).unwrap();
    assert_eq!((mode.as_str(), state.list().unwrap().len()), ("wal", 17));
}
