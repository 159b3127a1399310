//! What is recorded comes back, and what must not be recorded is refused.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicI64, Ordering};

use api::lifecycle::Resource;
use api::{Explain as _, Kind, SandboxName};

use super::super::{FindError, MIGRATIONS, Setup, StateError};
use super::Phase::{
    Cleaned, Cleaning, CleanupFailed, Created, Creating, Running, StartFailed, Starting, Stopped, Stopping,
};
use super::*;

fn name(text: &str) -> SandboxName {
    text.parse().unwrap()
}

#[test]
fn a_sandbox_is_recorded_and_listed_in_order() {
    let (_home, path) = home();
    let state = State::open(&path).unwrap();
    let first = NewSandbox { name: Some(name("web")), keep: true, owner_pid: None, ..sandbox(9) };
    let first = state.insert(&first).unwrap();
    let second = state.insert(&sandbox(1)).unwrap();
    assert_eq!((first.id, first.phase, first.version, first.keep), (id(9), Creating, 1, true));
    assert_eq!(second.owner_pid, Some(7));
    drop(state);
    let state = State::open(&path).unwrap();
    assert_eq!(state.list().unwrap(), [first.clone(), second]);
    state.set_exit_code(first.id, 137).unwrap();
    state.set_owner(first.id, Some(8)).unwrap();
    let record = state.record(first.id).unwrap();
    assert_eq!((record.exit_code, record.owner_pid, record.version), (Some(137), Some(8), 3));
    assert!(matches!(state.record(id(5)), Err(StateError::NotFound(_))));
    assert!(state.record(id(5)).unwrap_err().to_string().contains("not found"));
}

#[test]
fn a_start_forgets_how_the_command_ended_before() {
    let (_home, path) = home();
    let state = State::open(&path).unwrap();
    let sandbox = state.insert(&NewSandbox { keep: true, ..sandbox(1) }).unwrap();
    walk(&state, sandbox.id, &[Created, Starting, Running]);
    state.set_exit_code(sandbox.id, 3).unwrap();
    walk(&state, sandbox.id, &[Stopping, Stopped]);
    assert_eq!(state.record(sandbox.id).unwrap().exit_code, Some(3));
    walk(&state, sandbox.id, &[Starting]);
    assert_eq!(state.record(sandbox.id).unwrap().exit_code, None);
}

#[test]
fn only_the_user_can_read_it() {
    let (home, path) = home();
    let state = State::open(&path).unwrap();
    state.insert(&sandbox(1)).unwrap();
    let mut files = 0;
    for entry in fs::read_dir(&home).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
        files += 1;
    }
    assert_eq!(files, 3, "the database, its log, and the log's index");
}

#[test]
fn ids_and_names_are_given_once() {
    let (_home, path) = home();
    let state = State::open(&path).unwrap();
    state.insert(&NewSandbox { name: Some(name("web")), ..sandbox(1) }).unwrap();
    state.insert(&sandbox(2)).unwrap();
    let taken = state.insert(&NewSandbox { name: Some(name("web")), ..sandbox(3) }).unwrap_err();
    assert_eq!(taken.kind(), Kind::Conflict);
    assert!(taken.hint().is_some() && taken.to_string().contains("vm-00000001"), "{taken}");
    assert!(matches!(state.insert(&sandbox(2)), Err(StateError::IdTaken(_))));
    assert_eq!(state.find("web").unwrap().id, id(1));
}

#[test]
fn phases_change_as_the_table_says_and_leave_a_history() {
    let (_home, path) = home();
    let state = State::open(&path).unwrap();
    state.insert(&sandbox(1)).unwrap();
    walk(&state, id(1), &[Created, Starting]);
    state.advance(id(1), StartFailed, Some("no kernel")).unwrap();
    assert_eq!(state.record(id(1)).unwrap().last_error.as_deref(), Some("no kernel"));
    let wrong = state.advance(id(1), Running, None).unwrap_err();
    assert!(matches!(wrong, StateError::Transition { from: StartFailed, to: Running, .. }), "{wrong}");
    assert_eq!(wrong.kind(), Kind::Conflict);
    walk(&state, id(1), &[Starting, Running, Stopping, Stopped]);
    let record = state.record(id(1)).unwrap();
    assert_eq!((record.phase, record.version, record.last_error), (Stopped, 8, None));
    let history = state.history(id(1)).unwrap();
    assert_eq!((history[0].from, history[0].to), (None, Creating));
    assert!(history.windows(2).all(|two| two[0].seq < two[1].seq && Some(two[0].to) == two[1].from));
    assert_eq!((history[3].to, history[3].note.as_deref()), (StartFailed, Some("no kernel")));
    assert_eq!(history.len(), 8);
}

#[test]
fn history_cannot_be_rewritten() {
    let (_home, path) = home();
    let state = State::open(&path).unwrap();
    state.insert(&sandbox(1)).unwrap();
    for attempt in ["UPDATE history SET note = 'nothing happened'", "DELETE FROM history"] {
        let error = state.connection().execute(attempt, ()).unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    assert_eq!(state.history(id(1)).unwrap().len(), 1);
}

#[test]
fn order_is_not_time_for_clocks_jump() {
    static NOW: AtomicI64 = AtomicI64::new(1_000_000);
    let (_home, path) = home();
    let clock = || NOW.fetch_sub(1000, Ordering::Relaxed);
    let state = State::open_with(&path, Setup { migrations: MIGRATIONS, clock }).unwrap();
    for bits in [3, 1, 2] {
        state.insert(&sandbox(bits)).unwrap();
    }
    walk(&state, id(3), &[Created, Starting, Running]);
    let ids: Vec<_> = state.list().unwrap().into_iter().map(|record| record.id).collect();
    assert_eq!(ids, [id(3), id(1), id(2)]);
    let history = state.history(id(3)).unwrap();
    assert!(history.windows(2).all(|two| two[0].at > two[1].at), "the clock went backwards");
    assert_eq!(
        history.iter().map(|entry| entry.to).collect::<Vec<_>>(),
        [Creating, Created, Starting, Running]
    );
}

#[test]
fn resources_are_on_the_list_until_they_are_released() {
    let (_home, path) = home();
    let state = State::open(&path).unwrap();
    state.insert(&sandbox(1)).unwrap();
    let odd = PathBuf::from(OsStr::from_bytes(b"/home/\xff\xfe/\"sandboxes\""));
    let resources = [
        Resource::Directory { path: odd },
        Resource::Socket { path: "/run/agent.sock".into() },
        Resource::ScratchDisk { path: "/scratch".into() },
        Resource::Process { pid: 4_000_000, start_time: u64::MAX },
    ];
    let mut keys = Vec::new();
    for resource in &resources {
        keys.push(state.plan(id(1), resource).unwrap());
    }
    let holdings = state.resources(id(1)).unwrap();
    assert!(holdings.iter().map(|holding| &holding.resource).eq(&resources));
    assert!(holdings.iter().map(|holding| holding.key).eq(keys.iter().copied()));
    assert_eq!(state.record(id(1)).unwrap().version, 5);

    walk(&state, id(1), &[Cleaning]);
    assert!(matches!(state.advance(id(1), Cleaned, None), Err(StateError::Holds { count: 4, .. })));
    walk(&state, id(1), &[CleanupFailed, Cleaning]);
    for key in keys.iter().rev() {
        state.released(*key).unwrap();
        state.released(*key).unwrap();
    }
    walk(&state, id(1), &[Cleaned]);
    let later = state.plan(id(1), &resources[1]).unwrap();
    assert!(!keys.contains(&later), "a key is not used again");
}

#[test]
fn only_what_is_cleaned_is_forgotten_and_then_entirely() {
    let (_home, path) = home();
    let state = State::open(&path).unwrap();
    state.insert(&sandbox(1)).unwrap();
    state.insert(&sandbox(2)).unwrap();
    assert!(matches!(state.forget(id(1)), Err(StateError::NotCleaned { phase: Creating, .. })));
    walk(&state, id(1), &[Cleaning, Cleaned]);
    state.forget(id(1)).unwrap();
    assert!(matches!(state.forget(id(1)), Err(StateError::NotFound(_))));
    assert!(matches!(state.history(id(1)), Err(StateError::NotFound(_))));
    for table in ["history", "resources"] {
        let query = format!("SELECT count(*) FROM {table} WHERE sandbox = 'vm-00000001'");
        assert_eq!(state.connection().query_row(&query, (), |row| row.get::<_, i64>(0)), Ok(0));
    }
    assert_eq!(state.history(id(2)).unwrap().len(), 1);
}

#[test]
fn sandboxes_are_found_by_id_name_and_first_digits() {
    let (_home, path) = home();
    let state = State::open(&path).unwrap();
    for bits in [0xabcd_0001, 0xabcd_0002, 0xab00_0003] {
        state.insert(&sandbox(bits)).unwrap();
    }
    state.insert(&NewSandbox { name: Some(name("abcd0001")), ..sandbox(0x1000_0000) }).unwrap();
    let found = |text: &str| state.find(text).map(|record| record.id);
    for text in ["vm-abcd0002", "abcd0002", "vm-1", "1", "vm-ab0", "ab0"] {
        assert!(found(text).is_ok(), "{text}");
    }
    assert_eq!(found("abcd0001").unwrap(), id(0x1000_0000), "a name goes before digits");
    assert_eq!(found("vm-abcd0001").unwrap(), id(0xabcd_0001));
    for text in ["", "vm-", "2", "vm-abcd00011", "ABCD0002", "vm-%", "' OR 1 --", "web"] {
        let error = found(text).unwrap_err();
        assert!(error.to_string().contains("not found") && error.kind() == Kind::NotFound, "{error}");
    }
    let Err(FindError::Ambiguous { candidates, more: 0, .. }) = found("ab") else { panic!("not ambiguous") };
    assert_eq!(candidates, [id(0xab00_0003), id(0xabcd_0001), id(0xabcd_0002)]);
    assert!(found("vm-abcd").unwrap_err().to_string().contains("vm-abcd0001, vm-abcd0002"));
    for bits in 0..12 {
        state.insert(&sandbox(bits)).unwrap();
    }
    let many = state.find("0").unwrap_err().to_string();
    assert!(many.ends_with("vm-00000009, and 2 more"), "{many}");
}

#[test]
fn a_full_disk_is_the_hosts_fault_and_changes_nothing() {
    let (_home, path) = home();
    let state = State::open(&path).unwrap();
    state.insert(&sandbox(1)).unwrap();
    let before = state.record(id(1)).unwrap();
    state.connection().query_row("PRAGMA max_page_count = 1", (), |_| Ok(())).unwrap();
    let note = "x".repeat(100_000);
    let error = state.advance(id(1), Created, Some(&note)).unwrap_err();
    assert_eq!(error.kind(), Kind::HostUnready, "{error:?}");
    assert!(error.hint().unwrap().contains("MATCHLOCK_HOME"));
    assert_eq!(state.record(id(1)).unwrap(), before);
}

#[test]
fn a_directory_that_cannot_be_written_is_the_hosts_fault() {
    let (home, path) = home();
    fs::create_dir(&path).unwrap();
    let error = State::open(&path).unwrap_err();
    assert_eq!(error.kind(), Kind::HostUnready, "{error:?}");
    assert!(error.hint().unwrap().contains("MATCHLOCK_HOME"));
    drop(home);
}
