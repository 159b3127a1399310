//! `Exec`: a command from its start to its end.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use proto::agent::{Ended, Exec, RecordKind, StartError};

use super::running::Running;
use super::stdio::Streams;
use super::{Agent, input, output, shutting_down, start_thread};
use crate::command::words;
use crate::transport::{Stream, StreamError};

/// How long a command has to end by itself when the host has lost interest in it.
const ABANDONED_GRACE: Duration = Duration::from_secs(5);

/// Runs the command of `request`, which is `exec` as it was sent.
pub(super) fn serve(agent: &Agent, stream: Stream, exec: &Exec, request: &[u8]) -> Result<(), StreamError> {
    let stream = Arc::new(stream);
    let ended = run(agent, &stream, exec, request).unwrap_or_else(Ended::NotStarted);
    let report = postcard::to_stdvec(&ended).expect("plain data can be encoded");
    output::send(&stream, RecordKind::Ended, &report)?;
    // Input that is still on its way has nobody to read it.
    stream.stop_reading();
    stream.finish()
}

fn run(agent: &Agent, stream: &Arc<Stream>, exec: &Exec, request: &[u8]) -> Result<Ended, StartError> {
    let internal = |error: std::io::Error| StartError::Internal(words(&error));
    let streams = Streams::open(exec.stdio, &agent.terminals, &agent.null).map_err(internal)?;
    let Streams { theirs, input, outputs, terminal } = streams;
    let control = agent.spawner.launch(request, &theirs).map_err(|error| match error.kind() {
        // The spawner was closed.
        ErrorKind::BrokenPipe => shutting_down(),
        _ => internal(error),
    })?;
    // The command has its own by now; with ours open, we would never see the end of them.
    drop(theirs);

    let running = Arc::new(Running { control, terminal });
    let registered = agent.register(exec.id, &running)?;
    let abandoned = Arc::clone(&running);
    stream.on_reset(move || abandoned.terminate(ABANDONED_GRACE));
    match input {
        Some(input) => {
            let stream = Arc::clone(stream);
            start_thread("input", move || input::relay(&stream, input)).map_err(internal)?;
        }
        None => stream.stop_reading(),
    }
    let ended = output::relay(stream, outputs, &running.control);
    drop(registered);
    Ok(ended)
}
