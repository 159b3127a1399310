//! `exec_stream`: a command whose output comes in notifications. And what all `exec` methods do.

use std::time::Instant;

use api::rpc::{ExecParams, ExitResult, Failure};
use sandbox::agent::{Source, Stdio};

use super::{Answer, Call, params};
use crate::command::{self, Sink, Stop};
use crate::host::Host;
use crate::message::{self, DataLines};
use crate::outgoing::Outgoing;

pub(super) async fn run<H: Host>(call: Call<H>) -> Answer {
    let mut lines = OutputLines::new(&call);
    let finished = run_command(call, Stdio::Pipes { stdin: false }, None, &mut lines).await?;
    Ok(message::to_json(&finished))
}

/// How a command ended.
pub(super) type Finished = ExitResult;

/// Runs the command of an `exec` method to its end. `ready` is sent before anything else of it.
pub(super) async fn run_command<H: Host>(
    call: Call<H>,
    stdio: Stdio,
    ready: Option<Vec<u8>>,
    sink: &mut impl Sink,
) -> Result<Finished, Failure> {
    let command = params::command(call.params::<ExecParams>()?)?;
    let Call { host, outgoing, cancel, mut inbox, .. } = call;
    let started = Instant::now();
    let attended = async {
        let running = cancel.or(host.exec(command, stdio)).await?;
        if let Some(ready) = ready {
            outgoing.send(ready).await?;
        }
        match command::attend(running, &mut inbox, sink, &cancel, &outgoing).await {
            Ok(exit_code) => Ok(exit_code),
            Err(Stop::Failed(failure)) => Err(failure),
            Err(Stop::Agent(error)) => Err(host.explain(error).await),
        }
    };
    let attended = attended.await;
    inbox.settle(&outgoing).await;
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Finished { exit_code: attended?, duration_ms })
}

/// Sends output as notifications.
pub(super) struct OutputLines {
    stdout: DataLines,
    stderr: DataLines,
    outgoing: Outgoing,
}

impl OutputLines {
    pub(super) fn new<H: Host>(call: &Call<H>) -> Self {
        let lines = |source| DataLines::new(None, &format!("{}.{source}", call.method), &call.id);
        Self { stdout: lines("stdout"), stderr: lines("stderr"), outgoing: call.outgoing.clone() }
    }
}

impl Sink for OutputLines {
    async fn take(&mut self, source: Source, bytes: &[u8]) -> Result<(), Failure> {
        let lines = match source {
            Source::Stdout => &self.stdout,
            Source::Stderr => &self.stderr,
        };
        Ok(self.outgoing.send(lines.line(bytes)).await?)
    }
}
