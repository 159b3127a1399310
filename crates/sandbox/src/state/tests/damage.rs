//! Databases that are not what this program wrote.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use api::{Explain as _, Kind};
use rusqlite::Connection;

use super::super::StateError;
use super::*;

/// Makes a database of some pages at `path`.
fn fill(path: &Path) {
    let state = State::open(path).unwrap();
    for bits in 0..50 {
        let spec = format!("{{\"image\":\"{}\"}}", "x".repeat(500));
        state.insert(&NewSandbox { spec, ..sandbox(bits) }).unwrap();
    }
}

/// Opens it and reads everything, as far as that goes.
fn read(path: &Path) -> Result<(), StateError> {
    State::open(path).and_then(|state| state.verify())
}

/// The copies of damaged databases there are.
fn copies(home: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_str().is_some_and(|path| path.contains(".corrupt-"))).collect()
}

/// What is done to a database.
type Damage<'a> = &'a dyn Fn(&Path);

fn truncated_to(length: u64) -> impl Fn(&Path) {
    move |path| File::options().write(true).open(path).unwrap().set_len(length).unwrap()
}

fn overwritten_from(offset: u64) -> impl Fn(&Path) {
    move |path| {
        let length = usize::try_from(fs::metadata(path).unwrap().len() - offset).unwrap();
        File::options().write(true).open(path).unwrap().write_all_at(&vec![0xa5; length], offset).unwrap();
    }
}

fn changed_by(sql: &'static str) -> impl Fn(&Path) {
    move |path| Connection::open(path).unwrap().execute_batch(sql).unwrap()
}

#[test]
fn damage_of_any_kind_is_reported_copied_once_and_never_papered_over() {
    let page = 4096;
    let kinds: [(&str, Damage<'_>); 13] = [
        ("no database", &|path| fs::write(path, "not a database ".repeat(500)).unwrap()),
        ("a short file", &|path| fs::write(path, "x").unwrap()),
        ("an empty file", &truncated_to(0)),
        ("half a page", &truncated_to(2000)),
        ("one page", &truncated_to(page)),
        ("without its end", &truncated_to(5 * page + 100)),
        ("pages overwritten", &overwritten_from(page)),
        ("last pages overwritten", &overwritten_from(6 * page)),
        ("another program's", &|path| {
            fs::remove_file(path).unwrap();
            changed_by("CREATE TABLE bookmarks (x)")(path);
        }),
        ("a table is missing", &changed_by("DROP TABLE resources")),
        ("an unknown phase", &changed_by("UPDATE sandboxes SET phase = 'dead' WHERE seq = 7")),
        ("no ID", &changed_by("PRAGMA foreign_keys = OFF; UPDATE sandboxes SET id = 'vm-x' WHERE seq = 7")),
        (
            "an unknown resource",
            &changed_by("INSERT INTO resources VALUES (1, 'vm-00000000', '{\"kind\":\"moon\"}')"),
        ),
    ];
    for (kind, damage) in kinds {
        let (home, path) = home();
        fill(&path);
        damage(&path);
        let before = fs::read(&path).unwrap();
        let error = read(&path).expect_err(kind);
        let StateError::Corrupt { saved: Some(saved), .. } = &error else { panic!("{kind}: {error:?}") };
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains(saved.to_str().unwrap()), "{kind}: {error}");
        assert!(error.hint().unwrap().contains("matchlock gc --rebuild-state"));
        assert_eq!(fs::read(saved).unwrap(), before, "{kind}: the copy is not the damaged file");
        assert_eq!(fs::metadata(saved).unwrap().permissions().mode() & 0o777, 0o600);
        for _ in 0..3 {
            assert!(matches!(read(&path), Err(StateError::Corrupt { .. })), "{kind}");
        }
        assert_eq!(fs::read(&path).unwrap(), before, "{kind}: the file was changed");
        assert_eq!(copies(home.path()), std::slice::from_ref(saved), "{kind}");

        let (state, moved) = State::rebuild(&path).unwrap();
        assert_eq!(moved.as_ref(), Some(saved), "{kind}");
        assert_eq!((state.list().unwrap().len(), fs::read(saved).unwrap()), (0, before), "{kind}");
        drop(state);
        read(&path).unwrap();
        assert_eq!(copies(home.path()).len(), 1, "{kind}");
    }
}

#[test]
fn a_database_that_was_removed_under_its_log_is_damaged() {
    let (home, path) = home();
    let state = State::open(&path).unwrap();
    state.insert(&sandbox(1)).unwrap();
    fs::remove_file(&path).unwrap();
    std::mem::forget(state);
    assert!(matches!(State::open(&path), Err(StateError::Corrupt { saved: Some(_), .. })));
    assert!(!path.exists());
    assert_eq!(copies(home.path()).len(), 1);
    let (state, moved) = State::rebuild(&path).unwrap();
    assert!(state.list().unwrap().is_empty() && moved.is_some());
    assert_eq!(copies(home.path()).len(), 1);
}

#[test]
fn the_log_goes_along() {
    let (_home, path) = home();
    fill(&path);
    let state = State::open(&path).unwrap();
    walk(&state, id(1), &[Phase::Created]);
    overwritten_from(4096)(&path);
    // As after kill -9: the last to close it would write the log into the database.
    std::mem::forget(state);
    let log = fs::read(path.with_file_name("state.db-wal")).unwrap();
    let Err(StateError::Corrupt { saved: Some(saved), .. }) = read(&path) else { panic!("not noticed") };
    let name = saved.file_name().unwrap().to_str().unwrap();
    assert_eq!(fs::read(saved.with_file_name(format!("{name}-wal"))).unwrap(), log);
}

#[test]
fn a_sound_database_is_not_rebuilt() {
    let (home, path) = home();
    assert!(State::rebuild(&path).unwrap().1.is_none());
    fill(&path);
    let (state, moved) = State::rebuild(&path).unwrap();
    assert!(moved.is_none() && copies(home.path()).is_empty());
    assert_eq!(state.list().unwrap().len(), 50);
}

#[test]
fn who_still_has_the_damaged_database_open_does_not_harm_the_new_one() {
    let (_home, path) = home();
    fill(&path);
    let old = State::open(&path).unwrap();
    walk(&old, id(1), &[Phase::Created]);
    overwritten_from(4096)(&path);
    let (new, moved) = State::rebuild(&path).unwrap();
    new.insert(&sandbox(1)).unwrap();
    let _ = old.advance(id(2), Phase::Created, None);
    assert!(matches!(old.verify(), Err(StateError::Corrupt { saved, .. }) if saved == moved));
    drop(old);
    new.insert(&sandbox(2)).unwrap();
    assert_eq!(State::open(&path).unwrap().list().unwrap().len(), 2);
    drop(new);
    assert_eq!(State::open(&path).unwrap().list().unwrap().len(), 2);
    read(&path).unwrap();
}

#[test]
fn programs_that_rebuild_at_once_keep_what_the_first_has_made() {
    let (home, path) = home();
    fs::write(&path, "not a database").unwrap();
    std::thread::scope(|scope| {
        for bits in 0..8 {
            let path = &path;
            scope.spawn(move || State::rebuild(path).unwrap().0.insert(&sandbox(bits)).unwrap());
        }
    });
    assert_eq!(State::open(&path).unwrap().list().unwrap().len(), 8);
    assert_eq!(copies(home.path()).len(), 1);
}

#[test]
fn copies_of_a_database_that_changes_do_not_fill_the_disk() {
    let (home, path) = home();
    for round in 0..12 {
        fs::write(&path, format!("not a database {round}")).unwrap();
        let Err(StateError::Corrupt { saved, .. }) = State::open(&path) else { panic!("not noticed") };
        assert_eq!(saved.is_some(), round < 8);
    }
    assert_eq!(copies(home.path()).len(), 8);
}
