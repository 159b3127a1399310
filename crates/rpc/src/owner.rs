//! The owner's end: a sandbox behind the socket in its directory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use api::lifecycle::Resource;
use api::rpc::{AllowListAddResult, AllowListDeleteResult, Code, Failure, StatusResult};
use api::spec::CommandSpec;
use api::{Explain, Kind};
use sandbox::agent::{AgentError, Running, Stdio};
use sandbox::log::Follower;
use sandbox::publish::Publisher;
use sandbox::tenure::TenureError;
use sandbox::{LaunchError, SOCKET, Sandbox};
use thiserror::Error;
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::host::Host;
use crate::method::Methods;
use crate::service::Service;
use crate::{server, socket};

/// Bytes of a log that wait for whoever reads them.
const LOG_BUFFER: usize = 64 * 1024;

/// How long the last answers may take to leave.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// A sandbox cannot be served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Its record.
    #[error(transparent)]
    Tenure(#[from] TenureError),
    /// The socket.
    #[error("cannot listen on the sandbox's socket")]
    Socket(#[source] io::Error),
}

impl Explain for ServeError {
    fn kind(&self) -> Kind {
        match self {
            Self::Tenure(error) => error.kind(),
            Self::Socket(error) => api::error::io_kind(error),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Tenure(error) => error.hint(),
            Self::Socket(_) => None,
        }
    }
}

/// A sandbox that is served to other processes. Dropping this ends their sessions.
#[derive(Debug)]
pub struct Server {
    asked: mpsc::Receiver<Option<Duration>>,
    ended: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on the socket in the sandbox's directory. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(sandbox: &Arc<Sandbox>) -> Result<Self, ServeError> {
        sandbox.plan(Resource::Socket { path: sandbox.directory().join(SOCKET) })?;
        let listener = socket::bind(sandbox.directory(), SOCKET).map_err(ServeError::Socket)?;
        let (ask, asked) = mpsc::channel(1);
        let (ended, end) = watch::channel(false);
        let owned = Owned { sandbox: Arc::clone(sandbox), ask, end: end.clone() };
        let service = Service::new(Arc::new(owned), Methods::of_sandbox());
        let task = tokio::spawn(server::serve(listener, service, until(end)));
        Ok(Self { asked, ended, task })
    }

    /// Waits until a client asks that the sandbox be ended, and says how much time the guest may
    /// have for it; at once if `None`. Cancel-safe.
    pub async fn asked_to_close(&mut self) -> Option<Duration> {
        // The sender lives as long as the task, and that until `finish`.
        self.asked.recv().await.flatten()
    }

    /// Tells all clients that the sandbox has ended, and lets the last answers go.
    pub async fn finish(mut self) {
        self.ended.send_replace(true);
        if tokio::time::timeout(LAST_ANSWERS, &mut self.task).await.is_err() {
            tracing::debug!("clients do not read their last answers");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Resolves when the sandbox has ended, or its server is gone.
async fn until(mut end: watch::Receiver<bool>) {
    let _ = end.wait_for(|ended| *ended).await;
}

/// What sessions have of the sandbox.
#[derive(Debug)]
struct Owned {
    sandbox: Arc<Sandbox>,
    ask: mpsc::Sender<Option<Duration>>,
    end: watch::Receiver<bool>,
}

impl Host for Owned {
    type Log = DuplexStream;

    async fn exec(&self, command: CommandSpec, stdio: Stdio) -> Result<Running, Failure> {
        self.sandbox.exec(&command, stdio).await.map_err(|error| {
            let code = if matches!(error, LaunchError::Command(_)) { Code::EXEC } else { Code::VM };
            Failure::of(code, &error)
        })
    }

    async fn explain(&self, error: AgentError) -> Failure {
        Failure::of(Code::VM, &self.sandbox.explain(error).await)
    }

    async fn log(&self, follow: bool) -> Result<DuplexStream, Failure> {
        let failed = |error: io::Error| {
            Failure::new(Code::FILE, api::error::io_kind(&error), format!("cannot read the log: {error}"))
        };
        let (reader, mut writer) = duplex(LOG_BUFFER);
        if follow {
            let follower = self.sandbox.log().follow().map_err(failed)?;
            tokio::spawn(pass_on(follower, writer, until(self.end.clone())));
        } else {
            let content =
                sandbox::log::read(self.sandbox.directory(), sandbox::log::OUTPUT).map_err(failed)?;
            tokio::spawn(async move { writer.write_all(&content).await });
        }
        Ok(reader)
    }

    fn publisher(&self) -> Result<Publisher, Failure> {
        Ok(self.sandbox.publisher())
    }

    fn allow(&self, hosts: &[String]) -> Result<AllowListAddResult, Failure> {
        self.sandbox.allow(hosts).map_err(|error| Failure::of(Code::INVALID_PARAMS, &error))
    }

    fn disallow(&self, hosts: &[String]) -> Result<AllowListDeleteResult, Failure> {
        self.sandbox.disallow(hosts).map_err(|error| Failure::of(Code::INVALID_PARAMS, &error))
    }

    async fn status(&self) -> Result<StatusResult, Failure> {
        Ok(StatusResult {
            id: self.sandbox.id(),
            pid: std::process::id(),
            image: self.sandbox.spec().image.clone(),
            uptime_ms: u64::try_from(self.sandbox.uptime().as_millis()).unwrap_or(u64::MAX),
        })
    }

    async fn close(&self, grace: Option<Duration>) -> Result<(), Failure> {
        // If somebody has asked before, that is what happens.
        let _ = self.ask.try_send(grace);
        until(self.end.clone()).await;
        Ok(())
    }
}

/// Passes a log on until nobody reads it, or there will be no more of it.
async fn pass_on(mut log: Follower, mut reader: DuplexStream, end: impl Future<Output = ()>) {
    let mut buffer = vec![0; LOG_BUFFER];
    tokio::pin!(end);
    loop {
        let read = tokio::select! {
            // What there is comes before the end.
            biased;
            read = log.next(&mut buffer) => read,
            () = &mut end => return,
        };
        match read {
            Ok(Some(read)) if reader.write_all(&buffer[..read]).await.is_ok() => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot read the log");
                return;
            }
        }
    }
}
