//! Processes that die at the worst moment.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use api::lifecycle::Resource;
use rustix::process::Signal;

use super::super::crash;
use super::Phase::{Cleaned, Cleaning, Created, Running, Starting, Stopped, Stopping};
use super::*;

/// A whole life, in nine transactions.
fn live(state: &State, bits: u32) {
    let id = state.insert(&sandbox(bits)).unwrap().id;
    let key = state.plan(id, &Resource::Directory { path: "/d".into() }).unwrap();
    walk(state, id, &[Created, Starting, Running, Stopping, Cleaning]);
    state.released(key).unwrap();
    walk(state, id, &[Cleaned]);
}

#[test]
fn a_crash_point_is_before_and_after_every_change() {
    if let Some(path) = childs_database() {
        live(&State::open(&path).unwrap(), 1);
        return;
    }
    // The making of the database, and the transactions above, have two each.
    let points = 2 * (1 + 9);
    for point in 1..=points + 1 {
        let (_home, path) = home();
        let mut child = child("crashes", "a_crash_point_is_before_and_after_every_change", &path);
        let status = child.env(crash::VARIABLE, point.to_string()).status().unwrap();
        if point > points {
            assert!(status.success(), "there are more points than {points}");
            continue;
        }
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{point}");
        let state = State::open(&path).unwrap();
        let history = state.list().unwrap().first().map(|record| state.history(record.id).unwrap());
        // Point 2n is after the n-th transaction, point 2n + 1 before the next.
        let version = state.list().unwrap().first().map_or(0, |record| record.version);
        assert_eq!(version, i64::from((point / 2 - 1).max(0)), "{point}");
        assert!(history.is_none_or(|history| !history.is_empty()));
        live(&state, 2);
    }
}

#[test]
fn killing_a_writer_leaves_a_sound_database() {
    if let Some(path) = childs_database() {
        let state = State::open(&path).unwrap();
        let id = state.insert(&sandbox(std::process::id())).unwrap().id;
        walk(&state, id, &[Created]);
        loop {
            walk(&state, id, &[Starting, Running, Stopping, Stopped]);
        }
    }
    let (_home, path) = home();
    let mut entries = 0;
    for round in 0..20 {
        let mut child = child("crashes", "killing_a_writer_leaves_a_sound_database", &path).spawn().unwrap();
        let writing =
            || State::open(&path).unwrap().list().unwrap().iter().map(|record| record.version).sum::<i64>();
        while writing() < entries + 10 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(round * 700));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
        let state = State::open(&path).unwrap();
        state.verify().unwrap();
        let records = state.list().unwrap();
        assert_eq!(records.len(), usize::try_from(round).unwrap() + 1);
        for record in &records {
            let history = state.history(record.id).unwrap();
            assert_eq!(i64::try_from(history.len()).unwrap(), record.version, "no half of a change");
            assert_eq!(history.last().map(|entry| entry.to), Some(record.phase));
        }
        entries = records.iter().map(|record| record.version).sum();
    }
}
