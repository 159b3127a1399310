//! `Resize`: a new window size for a running command's terminal.

use proto::agent::{Answer, WindowSize};

use super::Agent;

/// Serves it.
pub(super) fn serve(agent: &Agent, id: u64, size: WindowSize) -> Answer {
    match agent.find(id) {
        Some(command) => {
            command.resize(size);
            Answer::Done
        }
        None => Answer::NoSuchCommand,
    }
}
