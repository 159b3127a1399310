//! A command in a sandbox of this process's own.

use sandbox::agent::{self, Ended, Running, WindowSize};

use super::{Attended, Command, Control, Error, Event, Input, Output};
use crate::output;

/// The command, ready to be attended.
pub(crate) fn command(running: Running) -> Command<agent::Output, agent::Input, agent::Control> {
    let Running { output, input, control } = running;
    Command { output, input, control }
}

impl Output for agent::Output {
    async fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Event, Error> {
        Ok(match self.next(buffer).await? {
            agent::Event::Wrote(source) => Event::Wrote(source),
            agent::Event::Ended(ended) => Event::Ended(attended(&ended)),
        })
    }
}

impl Input for agent::Input {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.write(bytes).await?)
    }

    async fn finish(&mut self) -> Result<(), Error> {
        Ok(self.finish().await?)
    }
}

impl Control for agent::Control {
    async fn signal(&self, number: i32) -> Result<(), Error> {
        Ok(self.signal(number).await?)
    }

    async fn resize(&self, size: WindowSize) -> Result<(), Error> {
        Ok(self.resize(size).await?)
    }
}

/// What became of a command; says why where it never ran.
fn attended(ended: &Ended) -> Attended {
    match ended {
        Ended::Exited(_) | Ended::Signalled(_) => Attended::Ended(ended.exit_code()),
        Ended::NotStarted(error) => {
            output::say(&format!("matchlock: {error}"));
            Attended::NotStarted(ended.exit_code())
        }
    }
}
