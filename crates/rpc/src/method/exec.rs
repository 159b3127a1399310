//! `exec`: a command whose output comes with the answer.

use api::Kind;
use api::rpc::{Code, ExecResult, Failure};
use sandbox::agent::{Source, Stdio};

use super::exec_stream::{Finished, run_command};
use super::{Answer, Call};
use crate::command::Sink;
use crate::host::Host;
use crate::message;
use crate::service::Held;

/// Most of each output, bytes: the answer must fit into a line, and a guest must not fill our memory.
const MAX_OUTPUT: usize = 32 * 1024 * 1024;

pub(super) async fn run<H: Host>(call: Call<H>) -> Answer {
    let mut output = Output::new(call.collected.clone());
    let stdio = Stdio::Pipes { stdin: false };
    let Finished { exit_code, duration_ms } = run_command(call, stdio, None, &mut output).await?;
    let (stdout, stderr) = (message::encode(&output.stdout), message::encode(&output.stderr));
    Ok(message::to_json(&ExecResult { exit_code, stdout, stderr, duration_ms }))
}

struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    collected: Held,
}

impl Output {
    fn new(collected: Held) -> Self {
        Self { stdout: Vec::new(), stderr: Vec::new(), collected }
    }
}

impl Sink for Output {
    async fn take(&mut self, source: Source, bytes: &[u8]) -> Result<(), Failure> {
        let (name, all) = match source {
            Source::Stdout => ("standard output", &mut self.stdout),
            Source::Stderr => ("standard error", &mut self.stderr),
        };
        if all.len() + bytes.len() > MAX_OUTPUT {
            return Err(too_much(format!("the command's {name} is over {MAX_OUTPUT} bytes")));
        }
        if !self.collected.take(bytes.len()) {
            return Err(too_much("the outputs of this sandbox's commands take too much memory".into()));
        }
        all.extend_from_slice(bytes);
        Ok(())
    }
}

fn too_much(message: String) -> Failure {
    Failure::new(Code::EXEC, Kind::LimitExceeded, message)
        .with_hint("use exec_stream, which passes output on as it comes")
}
