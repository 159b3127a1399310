//! A command in a sandbox that another process owns.

use rpc::client::{self, ClientError};
use sandbox::agent::{Source, WindowSize};

use super::{Attended, Command, Control, Error, Event, Input, Output};
use crate::output;

/// The command, ready to be attended.
pub(crate) fn command(command: client::Command) -> Command<client::Events, client::Input, client::Control> {
    let client::Command { events, input, control } = command;
    Command { output: events, input, control }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        Self::Own(error.into())
    }
}

impl Output for client::Events {
    async fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Event, Error> {
        loop {
            return Ok(match self.next().await {
                Ok(client::Event::Ready) => continue,
                Ok(client::Event::Stdout(data)) => {
                    *buffer = data;
                    Event::Wrote(Source::Stdout)
                }
                Ok(client::Event::Stderr(data)) => {
                    *buffer = data;
                    Event::Wrote(Source::Stderr)
                }
                Ok(client::Event::Ended(result)) => Event::Ended(Attended::Ended(result.exit_code)),
                Err(ClientError::Remote(failure)) => match failure.exit_code {
                    Some(code) => {
                        output::say(&format!("matchlock: {failure}"));
                        Event::Ended(Attended::NotStarted(code))
                    }
                    None => return Err(ClientError::Remote(failure).into()),
                },
                Err(error) => return Err(error.into()),
            });
        }
    }
}

impl Input for client::Input {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.write(bytes).await?)
    }

    async fn finish(&mut self) -> Result<(), Error> {
        Ok(self.finish().await?)
    }
}

impl Control for client::Control {
    async fn signal(&self, number: i32) -> Result<(), Error> {
        Ok(self.signal(number).await?)
    }

    async fn resize(&self, size: WindowSize) -> Result<(), Error> {
        Ok(self.resize(size.rows, size.columns).await?)
    }
}
