//! Many processes and threads at one database.

use std::sync::Barrier;
use std::thread;

use super::Phase::{Cleaning, Created, Running, Starting, Stopped, Stopping};
use super::*;

#[test]
fn threads_that_open_a_fresh_path_at_once_share_one_database() {
    for _ in 0..5 {
        let (home, path) = home();
        let barrier = Barrier::new(16);
        thread::scope(|scope| {
            for bits in 0..16 {
                let (path, barrier) = (&path, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    State::open(path).unwrap().insert(&sandbox(bits)).unwrap();
                });
            }
        });
        assert_eq!(State::open(&path).unwrap().list().unwrap().len(), 16);
        let names: Vec<_> =
            std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [FILE_NAME], "nothing else is left");
    }
}

#[test]
fn processes_that_open_a_fresh_path_at_once_share_one_database() {
    if let Some(path) = childs_database() {
        let state = State::open(&path).unwrap();
        let id = state.insert(&sandbox(std::process::id())).unwrap().id;
        walk(&state, id, &[Created, Starting, Running, Stopping, Stopped]);
        return;
    }
    let (_home, path) = home();
    let test = "processes_that_open_a_fresh_path_at_once_share_one_database";
    let children: Vec<_> = (0..20).map(|_| child("sharing", test, &path).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let records = State::open(&path).unwrap().list().unwrap();
    assert_eq!(records.len(), 20);
    assert!(records.iter().all(|record| record.phase == Stopped && record.version == 6));
}

#[test]
fn writers_neither_lose_a_change_nor_find_the_database_busy() {
    const WRITERS: u32 = 20;
    const ROUNDS: usize = 50;
    let (_home, path) = home();
    let state = State::open(&path).unwrap();
    let shared = state.insert(&sandbox(u32::MAX)).unwrap().id;
    walk(&state, shared, &[Cleaning]);
    thread::scope(|scope| {
        for bits in 0..WRITERS {
            let path = &path;
            scope.spawn(move || {
                let state = State::open(path).unwrap();
                let own = state.insert(&sandbox(bits)).unwrap().id;
                walk(&state, own, &[Created]);
                for _ in 0..ROUNDS {
                    state.advance(shared, Cleaning, None).unwrap();
                    assert!(state.list().unwrap().len() <= WRITERS as usize + 1);
                }
                for _ in 0..ROUNDS / 4 {
                    walk(&state, own, &[Starting, Running, Stopping, Stopped]);
                }
            });
        }
    });
    let changes = WRITERS as usize * ROUNDS;
    assert_eq!(state.record(shared).unwrap().version, 2 + i64::try_from(changes).unwrap());
    assert_eq!(state.history(shared).unwrap().len(), 2 + changes);
    for bits in 0..WRITERS {
        assert_eq!(state.history(id(bits)).unwrap().len(), 2 + ROUNDS / 4 * 4);
    }
}

#[test]
fn of_those_who_would_start_a_sandbox_at_once_one_does() {
    let (_home, path) = home();
    let state = State::open(&path).unwrap();
    let id = state.insert(&sandbox(1)).unwrap().id;
    walk(&state, id, &[Created]);
    let starters = thread::scope(|scope| {
        let start = || State::open(&path).unwrap().advance(id, Starting, None).is_ok();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!(starters, 1);
}
