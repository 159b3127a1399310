//! Sessions with a real channel and real processes: only the VM between them is missing.

mod agent;
mod client;
mod commands;
mod lines;
mod raw;
mod server;
mod throughput;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::rpc::{AllowListAddResult, AllowListDeleteResult, Code, Failure, StatusResult};
use api::spec::CommandSpec;
use api::{Kind, SandboxId};
use sandbox::agent::{Agent, AgentError, Running, Stdio};
use sandbox::publish::{Ports, Publisher};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::{Host, Methods, Service};
use agent::Guest;

/// How long anything may take on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// Whether somebody listens on that port of this machine.
pub(crate) fn is_published(port: u64) -> bool {
    let port = u16::try_from(port).expect("it is a port");
    std::net::TcpStream::connect((api::forward::DEFAULT_ADDRESS, port)).is_ok()
}

/// A host whose commands run on this machine.
pub(crate) struct Local {
    agent: Agent,
    guest: Arc<Guest>,
    closed: watch::Sender<bool>,
    grace: Mutex<Option<Duration>>,
}

/// What the log is.
const LOG: &[u8] = b"first line\nsecond line\n";

impl Host for Local {
    type Log = Box<dyn AsyncRead + Send + Unpin>;

    async fn exec(&self, command: CommandSpec, stdio: Stdio) -> Result<Running, Failure> {
        let resolved = sandbox::command::resolve(&Default::default(), &command, stdio);
        let exec = resolved.map_err(|error| Failure::of(Code::INVALID_PARAMS, &error))?;
        self.agent.exec(exec).await.map_err(|error| Failure::of(Code::VM, &error))
    }

    async fn explain(&self, error: AgentError) -> Failure {
        Failure::of(Code::VM, &error)
    }

    async fn log(&self, follow: bool) -> Result<Self::Log, Failure> {
        if !follow {
            return Ok(Box::new(LOG));
        }
        let mut closed = self.closed.subscribe();
        let (mut writer, reader) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut writer, b"grown\n").await.unwrap();
            let _ = closed.wait_for(|closed| *closed).await;
        });
        Ok(Box::new(LOG.chain(reader)))
    }

    fn publisher(&self) -> Result<Publisher, Failure> {
        Ok(Ports::new(self.agent.clone()).publisher())
    }

    fn allow(&self, hosts: &[String]) -> Result<AllowListAddResult, Failure> {
        Ok(AllowListAddResult { added: hosts.to_vec(), allowed_hosts: hosts.to_vec() })
    }

    fn disallow(&self, hosts: &[String]) -> Result<AllowListDeleteResult, Failure> {
        Ok(AllowListDeleteResult { removed: hosts.to_vec(), allowed_hosts: Vec::new() })
    }

    async fn status(&self) -> Result<StatusResult, Failure> {
        let id = SandboxId::from_bits(1);
        Ok(StatusResult { id, pid: std::process::id(), image: "test".into(), uptime_ms: 5 })
    }

    async fn close(&self, grace: Option<Duration>) -> Result<(), Failure> {
        if grace == Some(Duration::from_secs(666)) {
            return Err(Failure::new(Code::VM, Kind::Vm, "cannot end it"));
        }
        *self.grace.lock().unwrap() = grace;
        self.closed.send_replace(true);
        // The server hears of it before the client does.
        sleep(Duration::from_millis(50)).await;
        Ok(())
    }
}

/// A service over a new agent.
pub(crate) fn service() -> (Service<Local>, Arc<Local>) {
    let (channel, guest) = agent::start();
    let host = Arc::new(Local {
        agent: Agent::new(channel),
        guest,
        closed: watch::Sender::new(false),
        grace: Mutex::default(),
    });
    (Service::new(Arc::clone(&host), Methods::of_sandbox()), host)
}

impl Local {
    /// Waits until so many commands run.
    pub(crate) async fn running(&self, count: usize) {
        eventually(|| self.guest.running() == count).await;
    }
}

/// Waits until it is so.
pub(crate) async fn eventually(check: impl Fn() -> bool) {
    let wait = async {
        while !check() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, wait).await.expect("it never came to be");
}
