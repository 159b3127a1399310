//! `exec_tty`: a command with a terminal, whose size the client says.

use api::rpc::{ExecParams, Target};
use sandbox::agent::{Stdio, WindowSize};

use super::exec_stream::{OutputLines, run_command};
use super::{Answer, Call};
use crate::host::Host;
use crate::message;

/// The size of a terminal whose client does not say it.
const DEFAULT_SIZE: WindowSize = WindowSize { rows: 24, columns: 80 };

pub(super) async fn run<H: Host>(call: Call<H>) -> Answer {
    let params: ExecParams = call.params()?;
    let size = WindowSize {
        rows: params.rows.unwrap_or(DEFAULT_SIZE.rows),
        columns: params.cols.unwrap_or(DEFAULT_SIZE.columns),
    };
    let mut lines = OutputLines::new(&call);
    let ready = message::call(None, "exec_tty.ready", &Target { id: call.id.clone() });
    let finished = run_command(call, Stdio::Terminal { size }, Some(ready), &mut lines).await?;
    Ok(message::to_json(&finished))
}
