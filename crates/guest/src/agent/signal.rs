//! `Signal`: a signal to a running command.

use proto::agent::Answer;
use sys::signal::MAX_SIGNAL;

use super::Agent;

/// Serves it. A number that is no signal reaches nobody.
pub(super) fn serve(agent: &Agent, id: u64, signal: i32) -> Answer {
    match agent.find(id) {
        Some(command) => {
            if (1..=MAX_SIGNAL).contains(&signal) {
                command.signal(signal);
            }
            Answer::Done
        }
        None => Answer::NoSuchCommand,
    }
}
