//! A client that writes lines as they are.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf, WriteHalf, split,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{LONG, Local, service};
use crate::session;

/// Bytes between the session and the client: less than a line of output.
const PIPE: usize = 64 * 1024;

pub(crate) struct Raw {
    pub(crate) reader: BufReader<ReadHalf<DuplexStream>>,
    pub(crate) writer: WriteHalf<DuplexStream>,
    pub(crate) session: JoinHandle<()>,
    pub(crate) host: Arc<Local>,
}

impl Raw {
    pub(crate) fn start() -> Self {
        let (service, host) = service();
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let (reader, writer) = split(theirs);
        let mut closed = host.closed.subscribe();
        let session = tokio::spawn(async move {
            let shutdown = async move {
                let _ = closed.wait_for(|closed| *closed).await;
            };
            session::run(service, reader, writer, shutdown).await;
        });
        let (reader, writer) = split(ours);
        Self { reader: BufReader::new(reader), writer, session, host }
    }

    pub(crate) async fn line(&mut self, line: &str) {
        let line = format!("{line}\n");
        timeout(LONG, self.writer.write_all(line.as_bytes())).await.unwrap().unwrap();
    }

    pub(crate) async fn ask(&mut self, id: impl Into<Value>, method: &str, params: Value) {
        let request = json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params });
        self.line(&request.to_string()).await;
    }

    pub(crate) async fn notify(&mut self, method: &str, params: Value) {
        self.line(&json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()).await;
    }

    /// The next line; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        timeout(LONG, self.reader.read_line(&mut line)).await.expect("no line").unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// The answer to a request; what comes before it is given, too.
    pub(crate) async fn answer(&mut self, id: impl Into<Value>) -> (Value, Vec<Value>) {
        let (id, mut before) = (id.into(), Vec::new());
        loop {
            let line = self.next().await.expect("the session ended");
            if line["id"] == id {
                return (line, before);
            }
            before.push(line);
        }
    }

    /// The data of notifications, put together.
    pub(crate) fn data(lines: &[Value], method: &str) -> String {
        let parts = lines.iter().filter(|line| line["method"] == method);
        parts.map(|line| text(&line["params"]["data"])).collect()
    }
}

/// The text behind base64.
pub(crate) fn text(data: &Value) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(data.as_str().unwrap());
    String::from_utf8(bytes.unwrap()).unwrap()
}

/// The base64 of text.
pub(crate) fn data(text: &str) -> String {
    crate::message::encode(text.as_bytes())
}
