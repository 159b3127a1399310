//! Commands that meet: two that want the same, one that undoes what another does, signals at the wrong
//! moment. One wins, the other says why not, and nothing is left.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::Matchlock;
use harness::cache::BUSYBOX;
use rustix::process::{Pid, Signal, kill_process};

const SLEEP: [&str; 5] = ["--image", BUSYBOX, "--", "sleep", "1000"];

#[test]
fn of_two_starts_one_does_it_and_of_two_stops_both_see_it() {
    let matchlock = Matchlock::new();
    let id = matchlock.detached(&SLEEP);
    for _ in 0..3 {
        let stops = [(); 2].map(|()| matchlock.spawn(&["stop", "--timeout", "1s", &id]));
        let _ = stops.map(|stop| stop.wait().success());
        assert_eq!(matchlock.list()[0]["status"], "stopped");
        let starts = [(); 2].map(|()| matchlock.spawn(&["start", &id]));
        let mut codes = starts.map(|start| {
            let output = start.wait();
            assert!(output.code == Some(0) || output.stderr_text().contains("is running"), "{output:?}");
            output.code
        });
        codes.sort_unstable();
        assert_eq!(codes, [Some(0), Some(1)]);
        let _ = matchlock.run(&["exec", &id, "true"]).success();
    }
}

#[test]
fn a_sandbox_is_started_or_removed_but_not_both() {
    let matchlock = Matchlock::new();
    for _ in 0..4 {
        let id = matchlock.detached(&SLEEP);
        let _ = matchlock.run(&["kill", &id]).success();
        let (start, rm) = (matchlock.spawn(&["start", &id]), matchlock.spawn(&["rm", &id]));
        let (start, rm) = (start.wait(), rm.wait());
        assert_ne!(start.code, rm.code, "{start:?} {rm:?}");
        assert_eq!(matchlock.list().len(), usize::from(start.code == Some(0)));
        let _ = matchlock.run(&["kill", "--all"]).success();
        let _ = matchlock.run(&["prune"]).success();
    }
    matchlock.assert_nothing_left();
}

#[test]
fn a_name_is_given_once() {
    let matchlock = Matchlock::new();
    let runs = [(); 4].map(|()| matchlock.spawn(&[&["run", "-d", "--name", "web"], &SLEEP[..]].concat()));
    let outputs = runs.map(harness::Running::wait);
    assert_eq!(outputs.iter().filter(|output| output.code == Some(0)).count(), 1, "{outputs:?}");
    for refused in outputs.iter().filter(|output| output.code != Some(0)) {
        assert_eq!(refused.code, Some(125));
        assert!(refused.stderr_text().contains("web"), "{}", refused.stderr_text());
    }
    assert_eq!(matchlock.list().len(), 1);
}

#[test]
fn who_tidies_up_meanwhile_is_in_nobodys_way() {
    let matchlock = Matchlock::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for words in [&["gc"][..], &["gc"], &["list", "--json"], &["image", "gc"]] {
            let (matchlock, done) = (&matchlock, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let _ = matchlock.run(words).success();
                }
            });
        }
        let lives: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let id = matchlock.detached(&SLEEP);
                    for _ in 0..3 {
                        let _ = matchlock.run(&["kill", &id]).success();
                        let _ = matchlock.run(&["start", &id]).success();
                    }
                    let _ = matchlock.run(&["stop", "--timeout", "1s", &id]).success();
                    let _ = matchlock.run(&["rm", &id]).success();
                })
            })
            .collect();
        let failed = lives.into_iter().filter_map(|life| life.join().err()).count();
        done.store(true, Ordering::Relaxed);
        assert_eq!(failed, 0);
    });
    matchlock.assert_nothing_left();
}

#[test]
fn ctrl_c_while_a_sandbox_is_left_in_the_background_leaves_nothing() {
    let matchlock = Matchlock::new();
    for delay in [0, 5, 10, 15, 20, 25, 30, 40, 60, 100, 200, 400, 600, 700, 800].map(Duration::from_millis) {
        for to_all in [true, false] {
            let running = matchlock.spawn(&[&["run", "-d", "--name", "again"], &SLEEP[..]].concat());
            thread::sleep(delay);
            if to_all {
                running.signal_group(Signal::INT);
            } else {
                running.signal(Signal::TERM);
            }
            let output = running.wait();
            if output.code == Some(0) {
                // It was too late.
                let _ = matchlock.run(&["kill", "again"]).success();
                let _ = matchlock.run(&["rm", "again"]).success();
            } else {
                assert!(matches!(output.code, Some(130) | None), "{output:?} after {delay:?}");
                assert_eq!(output.stdout_text(), "");
                // Before there is anybody to tidy up, the signal itself may have ended all of them.
                if output.code.is_none() {
                    let _ = matchlock.run(&["gc"]).success();
                }
            }
            assert!(matchlock.list().is_empty(), "after {delay:?}");
        }
    }
    matchlock.assert_nothing_left();
}

/// The process that another one has started.
fn child(parent: Pid) -> Option<Pid> {
    let threads = fs::read_dir(format!("/proc/{}/task", parent.as_raw_nonzero())).ok()?;
    let children = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("children")));
    let found = children.flatten().find_map(|children| children.split_whitespace().next()?.parse().ok());
    found.and_then(Pid::from_raw)
}

#[test]
fn an_owner_that_is_killed_while_it_launches_is_told_and_leaves_nothing() {
    let matchlock = Matchlock::new();
    for delay in [0, 100, 300].map(Duration::from_millis) {
        let running = matchlock.spawn(&[&["run", "-d"], &SLEEP[..]].concat());
        let deadline = Instant::now() + Duration::from_secs(20);
        let owner = loop {
            assert!(Instant::now() < deadline, "it has no owner");
            if let Some(pid) = child(running.pid()) {
                break pid;
            }
        };
        thread::sleep(delay);
        kill_process(owner, Signal::KILL).unwrap();
        let output = running.wait();
        assert_eq!((output.code, output.stdout_text().as_str()), (Some(125), ""));
        assert!(output.stderr_text().contains("signal 9"), "{}", output.stderr_text());
        matchlock.assert_nothing_left();
    }
}

#[test]
fn a_signal_to_an_owner_in_the_background_stops_its_sandbox() {
    let matchlock = Matchlock::new();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let id = matchlock.detached(&SLEEP);
        let _ = matchlock.run(&["exec", &id, "--", "sh", "-c", "echo kept > /file"]).success();
        kill_process(matchlock.owner(&id), signal).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while matchlock.list()[0]["status"] != "stopped" {
            assert!(Instant::now() < deadline, "{:?}", matchlock.list());
            thread::sleep(Duration::from_millis(50));
        }
        let _ = matchlock.run(&["start", &id]).success();
        assert_eq!(matchlock.run(&["exec", &id, "cat", "/file"]).success().stdout_text(), "kept\n");
        let _ = matchlock.run(&["kill", &id]).success();
        let _ = matchlock.run(&["rm", &id]).success();
    }
    matchlock.assert_nothing_left();
}

#[test]
fn a_sandbox_that_boots_can_be_killed() {
    let matchlock = Matchlock::new();
    for _ in 0..3 {
        let running = matchlock.spawn(&[&["run", "-d", "--name", "early"], &SLEEP[..]].concat());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !matchlock.list().iter().any(|row| row["status"] == "starting") {
            assert!(Instant::now() < deadline);
        }
        let _ = matchlock.run(&["kill", "early"]).success();
        assert_ne!(running.wait().code, Some(0));
        matchlock.assert_nothing_left();
    }
}

/// Keeps the owner of the only sandbox from saying that it is the one, from the moment at which it is made;
/// false if that has passed unseen.
fn hold_at_created(database: &rusqlite::Connection) -> rusqlite::Result<bool> {
    let is = |phases: &str| {
        database.prepare(&format!("SELECT 1 FROM sandboxes WHERE phase IN ({phases})"))?.exists([])
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is("'created', 'starting', 'running'")? {
        assert!(Instant::now() < deadline);
    }
    database.execute_batch("BEGIN IMMEDIATE")?;
    let held = is("'created'")?;
    if !held {
        database.execute_batch("ROLLBACK")?;
    }
    Ok(held)
}

#[test]
fn a_sandbox_that_is_just_handed_to_its_owner_can_be_killed() {
    let matchlock = Matchlock::new();
    assert!(matchlock.list().is_empty(), "there is a database from here on");
    let database = rusqlite::Connection::open(matchlock.home().join("state.db")).unwrap();
    let held = (0..20).find_map(|_| {
        let running = matchlock.spawn(&[&["run", "-d", "--name", "early"], &SLEEP[..]].concat());
        if hold_at_created(&database).unwrap() {
            return Some(running);
        }
        let _ = running.wait().success();
        let _ = matchlock.run(&["kill", "early"]).success();
        let _ = matchlock.run(&["rm", "early"]).success();
        None
    });
    let running = held.expect("the moment is seen in one of many tries");
    let kill = matchlock.spawn(&["kill", "early"]);
    thread::sleep(Duration::from_secs(1));
    database.execute_batch("ROLLBACK").unwrap();
    let _ = kill.wait().success();
    assert_ne!(running.wait().code, Some(0));
    matchlock.assert_nothing_left();
}
