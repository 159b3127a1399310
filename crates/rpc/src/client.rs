//! The other end: a connection to the process that owns a sandbox.
//!
//! A task reads the connection. It waits for whoever does not take a command's output, so that the
//! command waits, too; a second command on the same connection then waits with it.

mod connection;
mod exec;
mod log;

use std::io;
use std::path::Path;
use std::time::Duration;

use api::forward::Binding;
use api::rpc::{
    AllowListAddResult, AllowListDeleteResult, AllowListParams, CloseParams, Code, ExecParams, Failure,
    LogResult, PortForwardParams, PortForwardResult, StatusResult,
};
use api::{Explain, Kind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::socket;
use connection::Connection;
pub use exec::{Command, Control, Event, Events, Input, Mode};
pub use log::LogStream;

/// The owner did not do as asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens: the sandbox is not running.
    #[error("the sandbox is not running")]
    NotRunning(#[source] io::Error),
    /// It is another user's.
    #[error("the sandbox belongs to another user")]
    Denied(#[source] io::Error),
    /// The socket cannot be used.
    #[error("cannot connect to the sandbox's owner")]
    Connect(#[source] io::Error),
    /// The owner is gone, and with it the sandbox.
    #[error("the connection to the sandbox's owner broke off")]
    Gone,
    /// What it says cannot be understood.
    #[error("the sandbox's owner sent a malformed message")]
    Malformed,
    /// It said no.
    #[error(transparent)]
    Remote(#[from] Failure),
}

impl Explain for ClientError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotRunning(_) => Kind::NotFound,
            Self::Denied(_) => Kind::Denied,
            Self::Connect(error) => api::error::io_kind(error),
            Self::Gone => Kind::Vm,
            Self::Malformed => Kind::Internal,
            Self::Remote(failure) => failure.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Remote(failure) if failure.code == Code::UNKNOWN_METHOD => {
                Some("the sandbox was started by another version of matchlock".to_owned())
            }
            Self::Remote(failure) => failure.hint(),
            Self::Gone => Some("`matchlock list` shows what became of the sandbox".to_owned()),
            _ => None,
        }
    }
}

/// A connection to a sandbox's owner. When it is dropped, and the commands and logs that came of it,
/// all that it started ends.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Connects to the socket `name` in `dir`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`], [`ClientError::Denied`] or [`ClientError::Connect`].
    pub async fn connect(dir: &Path, name: &str) -> Result<Self, ClientError> {
        let stream = socket::connect(dir, name).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning(error),
            io::ErrorKind::PermissionDenied => ClientError::Denied(error),
            _ => ClientError::Connect(error),
        })?;
        let (reader, writer) = stream.into_split();
        Ok(Self::new(reader, writer))
    }

    /// The client over another transport. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(
        reader: impl AsyncRead + Unpin + Send + 'static,
        writer: impl AsyncWrite + Unpin + Send + 'static,
    ) -> Self {
        Self { connection: Connection::new(reader, writer) }
    }

    /// Starts a command.
    ///
    /// # Errors
    /// When the owner is gone. Whether it could be started comes as its events.
    pub async fn exec(&self, params: &ExecParams, mode: Mode) -> Result<Command, ClientError> {
        exec::start(&self.connection, params, mode).await
    }

    /// The log as it is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn log(&self) -> Result<Vec<u8>, ClientError> {
        let LogResult { content } = self.call("log", &()).await?;
        BASE64.decode(content).map_err(|_| ClientError::Malformed)
    }

    /// The log as it is and as it grows.
    ///
    /// # Errors
    /// When the owner is gone.
    pub async fn log_stream(&self) -> Result<LogStream, ClientError> {
        log::start(&self.connection).await
    }

    /// Publishes ports for as long as this connection lasts, instead of those that it has published.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn port_forward(&self, wanted: &PortForwardParams) -> Result<Vec<Binding>, ClientError> {
        let PortForwardResult { bindings } = self.call("port_forward", wanted).await?;
        Ok(bindings)
    }

    /// Allows the sandbox hosts.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn allow(&self, hosts: &[String]) -> Result<AllowListAddResult, ClientError> {
        self.call("allow_list_add", &AllowListParams { hosts: hosts.to_vec() }).await
    }

    /// Takes hosts back that the sandbox was allowed.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn disallow(&self, hosts: &[String]) -> Result<AllowListDeleteResult, ClientError> {
        self.call("allow_list_delete", &AllowListParams { hosts: hosts.to_vec() }).await
    }

    /// Whom one talks to.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<StatusResult, ClientError> {
        self.call("status", &()).await
    }

    /// Ends the sandbox: at once, or gracefully within the time. Returns when it has ended.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn close(&self, grace: Option<Duration>) -> Result<(), ClientError> {
        let timeout_seconds = grace.map(|grace| grace.as_secs_f64());
        let _: serde::de::IgnoredAny = self.call("close", &CloseParams { timeout_seconds }).await?;
        Ok(())
    }

    /// Waits until the connection has ended, and says why.
    pub async fn ended(&self) -> ClientError {
        self.connection.ended().await
    }

    /// Calls a method and waits for its result.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn call<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &impl Serialize,
    ) -> Result<R, ClientError> {
        self.connection.call(method, params).await
    }
}
