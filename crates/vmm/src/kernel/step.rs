//! Running the programs that a build needs: in a process group of their own that is killed as a
//! whole when the step is given up, with the end of their output kept for the error.

use std::io;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::Command;

use super::build::BuildError;
use crate::console::Tail;

/// Longest line of output that is looked at, bytes.
const MAX_LINE: u64 = 64 * 1024;

/// Runs `command` to its end and shows every line of its output to `line`.
///
/// # Errors
/// [`BuildError::Step`] if it cannot be started or fails.
pub(super) async fn run(
    command: &mut Command,
    step: &'static str,
    mut line: impl FnMut(&str),
) -> Result<(), BuildError> {
    let tail = Tail::default();
    let failed =
        |error: io::Error, tail: &Tail| BuildError::Step { step, output: tail.text(), source: error };
    let (reader, group) = start(command).map_err(|error| failed(error, &tail))?;
    let mut lines = BufReader::new(reader);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut bytes).await {
            Ok(0) => break,
            Ok(_) => {
                tail.push(&bytes);
                line(String::from_utf8_lossy(&bytes).trim_end());
            }
            Err(error) => return Err(failed(error, &tail)),
        }
    }
    let status = group.wait().await.map_err(|error| failed(error, &tail))?;
    if !status.success() {
        return Err(failed(io::Error::other(format!("it ended with {status}")), &tail));
    }
    Ok(())
}

/// Starts it with one pipe for all of its output.
fn start(command: &mut Command) -> io::Result<(pipe::Receiver, Group)> {
    let (reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let child = command.spawn();
    // The command keeps its ends of the pipe open, which would keep us reading.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = child?;
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok((pipe::Receiver::from_owned_fd(reader.into())?, Group { child, id }))
}

/// A running process group.
struct Group {
    child: tokio::process::Child,
    id: Option<Pid>,
}

impl Group {
    async fn wait(mut self) -> io::Result<std::process::ExitStatus> {
        let status = self.child.wait().await?;
        // Its number may be somebody else's from now on.
        self.id = None;
        Ok(status)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.id {
            // Fails only if all of it has ended already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
