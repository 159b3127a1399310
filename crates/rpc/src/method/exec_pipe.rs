//! `exec_pipe`: a command whose input and output come and go as they are made.

use api::rpc::Target;
use sandbox::agent::Stdio;

use super::exec_stream::{OutputLines, run_command};
use super::{Answer, Call};
use crate::host::Host;
use crate::message;

pub(super) async fn run<H: Host>(call: Call<H>) -> Answer {
    let mut lines = OutputLines::new(&call);
    let ready = message::call(None, "exec_pipe.ready", &Target { id: call.id.clone() });
    let finished = run_command(call, Stdio::Pipes { stdin: true }, Some(ready), &mut lines).await?;
    Ok(message::to_json(&finished))
}
