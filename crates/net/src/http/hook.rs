//! Calls to the client's socket: one connection a call, one line of JSON each way. No lock is held, and
//! whatever goes wrong is a failure that refuses the request.

use std::path::Path;
use std::time::Duration;

use api::hook::{HookReply, HookRequest};
use policy::request::HookFailure;
use serde_json::{Map, Value};
use tokio::io::AsyncBufReadExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// The longest answer, bytes, with its line end. Stops a client from making us buffer for ever.
const MAX_ANSWER: u64 = 1024 * 1024;

/// Asks, and waits for the answer at most `timeout`.
pub(super) async fn ask(
    socket: Option<&Path>,
    request: &HookRequest,
    timeout: Duration,
) -> Result<HookReply, HookFailure> {
    let socket = socket.ok_or_else(|| HookFailure::Unreachable("there is no socket".to_owned()))?;
    tokio::time::timeout(timeout, call(socket, request)).await.unwrap_or(Err(HookFailure::TimedOut))
}

async fn call(socket: &Path, request: &HookRequest) -> Result<HookReply, HookFailure> {
    let mut line =
        serde_json::to_vec(request).map_err(|_| HookFailure::Nonsense("a question that cannot be asked"))?;
    line.push(b'\n');
    let line = exchange(socket, &line).await.map_err(|error| HookFailure::Unreachable(error.to_string()))?;
    if line.len() as u64 > MAX_ANSWER {
        return Err(HookFailure::TooLong);
    }
    parse(&line).ok_or(HookFailure::Nonsense("what is no answer"))
}

/// An answer, its parts objects: serde would take an array for a structure, and an empty one for "go on". It
/// is read from the text, where a key that is there twice shows.
fn parse(line: &[u8]) -> Option<HookReply> {
    let answer: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let mut parts = ["request", "response"].iter().filter_map(|part| answer.get(*part));
    if !parts.all(|part| part.is_object() || part.is_null()) {
        return None;
    }
    serde_json::from_slice(line).ok()
}

async fn exchange(socket: &Path, line: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(line).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    // One byte more tells that there is more.
    BufReader::new(stream).take(MAX_ANSWER + 1).read_until(b'\n', &mut answer).await?;
    Ok(answer)
}
