//! A sandbox that stays while a test runs command after command in it.

use std::process::Stdio;

use serde_json::Value;

use crate::{Matchlock, Output, Running, matchlock};

/// A sandbox in the background; it ends with its [`Matchlock`], or before.
#[derive(Debug)]
pub struct Sandbox<'a> {
    matchlock: &'a Matchlock,
    id: String,
}

impl<'a> Sandbox<'a> {
    /// Starts one of `image`, with further flags of `run`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(matchlock: &'a Matchlock, image: &str, flags: &[&str]) -> Self {
        let id = matchlock.detached(&[flags, &["--image", image, "--", "sleep", "1000"]].concat());
        Self { matchlock, id }
    }

    /// Its ID.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Runs a command in it to its end.
    #[must_use]
    pub fn exec(&self, command: &[&str]) -> Output {
        self.matchlock.run(&[&["exec", &self.id, "--"], command].concat())
    }

    /// Runs lines of its shell.
    #[must_use]
    pub fn sh(&self, script: &str) -> Output {
        self.exec(&["sh", "-c", script])
    }

    /// Runs a Python program.
    #[must_use]
    pub fn python(&self, program: &str) -> Output {
        self.exec(&["python3", "-c", program])
    }

    /// Starts a command with a pipe for its standard input.
    #[must_use]
    pub fn spawn(&self, command: &[&str]) -> Running {
        let mut command = self.matchlock.command(&[&["exec", "-i", &self.id, "--"], command].concat());
        Running::start(command.stdin(Stdio::piped()), matchlock::LIMIT)
    }

    /// Runs `matchlock FIRST ID REST…`.
    #[must_use]
    pub fn command(&self, first: &[&str], rest: &[&str]) -> Output {
        self.matchlock.run(&[first, &[&self.id], rest].concat())
    }

    /// The network events so far, of `policy log`.
    ///
    /// # Panics
    /// When they are not a JSON object a line.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        let output = self.command(&["policy", "log"], &["--events", "--json"]).success().stdout_text();
        let event = |line| serde_json::from_str::<Value>(line).expect("an event is an object");
        output.lines().map(event).map(|mut event| event["network"].take()).collect()
    }

    /// Ends it.
    pub fn kill(self) {
        let _ = self.matchlock.run(&["kill", &self.id]).success();
        let _ = self.matchlock.run(&["rm", &self.id]);
    }
}
