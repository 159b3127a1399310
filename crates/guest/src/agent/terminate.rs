//! `Terminate`: the end of a running command, with all its processes.

use std::time::Duration;

use proto::agent::Answer;

use super::Agent;

/// Serves it.
pub(super) fn serve(agent: &Agent, id: u64, grace_ms: u64) -> Answer {
    match agent.find(id) {
        Some(command) => {
            command.terminate(Duration::from_millis(grace_ms));
            Answer::Done
        }
        None => Answer::NoSuchCommand,
    }
}
