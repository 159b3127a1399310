//! A client for the little we need of Firecracker's API: which version it is, and pausing, resuming and
//! saving the machine. HTTP/1.1 with JSON over one connection that stays open.
//!
//! Protocol: `src/firecracker/swagger/firecracker.yaml` of Firecracker. The VMM may be in the guest's hands:
//! what it says is bounded, waited for only so long, and never trusted with more than an error's text.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// The longest answer, bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// How long an answer may take. To save a machine takes the time of writing its memory.
const PATIENCE: Duration = Duration::from_secs(60);

/// The API is of no use.
#[derive(Debug, Error)]
pub enum ApiError {
    /// The connection broke, or what came over it is not HTTP.
    #[error("the connection to its API failed")]
    Http(#[from] hyper::Error),
    /// No answer in time.
    #[error("its API did not answer within {} s", PATIENCE.as_secs())]
    Timeout,
    /// An answer of more than [`MAX_ANSWER`] bytes, or one that ended too early.
    #[error("its API sent no whole answer")]
    Answer,
    /// An answer that is not the one to our question.
    #[error("its API sent something else than was asked for")]
    Malformed(#[from] serde_json::Error),
    /// A request was refused.
    #[error("its API refused a request ({status}): {message}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// Firecracker's words.
        message: String,
    },
}

/// A connection to the API of a Firecracker that runs.
#[derive(Debug)]
pub struct Api {
    sender: Mutex<SendRequest<Full<Bytes>>>,
}

impl Api {
    /// Takes a connection to it. Must be called within a tokio runtime.
    pub(super) async fn new(stream: UnixStream) -> Result<Self, ApiError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to Firecracker's API ended");
            }
        });
        Ok(Self { sender: Mutex::new(sender) })
    }

    /// The version that it says it is, for example `1.12.1`.
    pub(super) async fn version(&self) -> Result<String, ApiError> {
        #[derive(Deserialize)]
        struct Version {
            firecracker_version: String,
        }
        let answer = self.send(Method::GET, "/version", None).await?;
        Ok(serde_json::from_slice::<Version>(&answer)?.firecracker_version)
    }

    /// Stops the machine's vCPUs, until [`Api::resume`].
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn pause(&self) -> Result<(), ApiError> {
        self.change("/vm", Method::PATCH, json!({ "state": "Paused" })).await
    }

    /// Lets a paused machine go on.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn resume(&self) -> Result<(), ApiError> {
        self.change("/vm", Method::PATCH, json!({ "state": "Resumed" })).await
    }

    /// Saves a paused machine: its memory, as large as the guest's, to one file, all else to another.
    /// Firecracker must be able to make them, which its jail does not let it unless they are below a
    /// folder that it was given.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn snapshot(&self, state: &Path, memory: &Path) -> Result<(), ApiError> {
        let files = json!({ "snapshot_type": "Full", "snapshot_path": state, "mem_file_path": memory });
        self.change("/snapshot/create", Method::PUT, files).await
    }

    async fn change(&self, path: &str, method: Method, body: Value) -> Result<(), ApiError> {
        self.send(method, path, Some(body)).await.map(drop)
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Bytes, ApiError> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::from(body))
            .expect("our own paths are well-formed");
        let exchange = async {
            let mut sender = self.sender.lock().await;
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|_| ApiError::Answer)?;
            Ok((head.status, body.to_bytes()))
        };
        let (status, answer) = timeout(PATIENCE, exchange).await.unwrap_or(Err(ApiError::Timeout))?;
        if status.is_success() { Ok(answer) } else { Err(refused(status, &answer)) }
    }
}

fn refused(status: StatusCode, answer: &[u8]) -> ApiError {
    #[derive(Deserialize)]
    struct Fault {
        fault_message: String,
    }
    let fault = serde_json::from_slice::<Fault>(answer).map(|fault| fault.fault_message);
    ApiError::Refused { status, message: fault.unwrap_or_else(|_| "it gave no reason".to_owned()) }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// The API, and what was asked of it, when it gives this answer.
    async fn asked<T>(
        answer: &str,
        ask: impl AsyncFnOnce(&Api) -> Result<T, ApiError>,
    ) -> (String, Result<T, ApiError>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let api = Api::new(ours).await.unwrap();
        let firecracker = async {
            let mut request = vec![0; 1024];
            let length = theirs.read(&mut request).await.unwrap();
            theirs.write_all(answer.as_bytes()).await.unwrap();
            theirs.shutdown().await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        };
        tokio::join!(firecracker, ask(&api))
    }

    #[tokio::test]
    async fn a_machine_is_paused_resumed_and_saved() {
        let done = "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n";
        let (request, outcome) = asked(done, Api::pause).await;
        assert!(outcome.is_ok() && request.starts_with("PATCH /vm HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"state\":\"Paused\"}"), "{request}");
        let (request, outcome) = asked(done, Api::resume).await;
        assert!(outcome.is_ok() && request.ends_with("\r\n\r\n{\"state\":\"Resumed\"}"), "{request}");
        let snapshot = async |api: &Api| api.snapshot(Path::new("/s"), Path::new("/m")).await;
        let (request, outcome) = asked(done, snapshot).await;
        assert!(outcome.is_ok() && request.starts_with("PUT /snapshot/create HTTP/1.1\r\n"), "{request}");
        let body = request.split("\r\n\r\n").nth(1).unwrap();
        let expected = json!({ "snapshot_type": "Full", "snapshot_path": "/s", "mem_file_path": "/m" });
        assert_eq!(serde_json::from_str::<Value>(body).unwrap(), expected);
    }

    #[tokio::test]
    async fn an_api_in_the_guests_hands_is_given_up() {
        let answer =
            |length: usize, body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        let refusal = "HTTP/1.1 400 Bad Request\r\nContent-Length: 22\r\n\r\n{\"fault_message\":\"no\"}";
        for (answer, expected) in [
            ("garbage".to_owned(), "connection"),
            (String::new(), "connection"),
            (answer(10, "{"), "whole answer"),
            (answer(MAX_ANSWER + 1, &"x".repeat(MAX_ANSWER + 1)), "whole answer"),
            (answer(2, "{}"), "something else"),
            (refusal.to_owned(), "(400 Bad Request): no"),
        ] {
            let (_, outcome) = asked(&answer, Api::version).await;
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let version = "{\"firecracker_version\":\"1.12.1\"}";
        let (request, outcome) = asked(&answer(version.len(), version), Api::version).await;
        assert_eq!(outcome.unwrap(), "1.12.1", "{request}");
    }
}
