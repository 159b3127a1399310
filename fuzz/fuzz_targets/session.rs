//! What clients write to a sandbox's socket: lines, JSON-RPC, the parameters of each method.

#![no_main]

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use api::rpc::{AllowListAddResult, AllowListDeleteResult, Code, Failure, StatusResult};
use api::spec::CommandSpec;
use api::{Kind, SandboxId};
use libfuzzer_sys::fuzz_target;
use rpc::{Host, Methods, Service, session};
use sandbox::agent::{AgentError, Running, Stdio};
use sandbox::publish::Publisher;
use tokio::io::AsyncWrite;
use tokio::runtime::{Builder, Runtime};

/// A sandbox that starts no command.
struct Nothing;

fn refused() -> Failure {
    Failure::new(Code::VM, Kind::Vm, "there is no VM")
}

impl Host for Nothing {
    type Log = &'static [u8];

    async fn exec(&self, command: CommandSpec, _: Stdio) -> Result<Running, Failure> {
        assert!(!command.args.is_empty(), "a method has let a command through that is none");
        Err(refused())
    }

    async fn explain(&self, _: AgentError) -> Failure {
        refused()
    }

    async fn log(&self, _: bool) -> Result<&'static [u8], Failure> {
        Ok(b"a log\n")
    }

    fn publisher(&self) -> Result<Publisher, Failure> {
        Err(refused())
    }

    fn allow(&self, _: &[String]) -> Result<AllowListAddResult, Failure> {
        Err(refused())
    }

    fn disallow(&self, _: &[String]) -> Result<AllowListDeleteResult, Failure> {
        Err(refused())
    }

    async fn status(&self) -> Result<StatusResult, Failure> {
        Ok(StatusResult { id: SandboxId::from_bits(1), pid: 1, image: "image".into(), uptime_ms: 1 })
    }

    async fn close(&self, _: Option<Duration>) -> Result<(), Failure> {
        Ok(())
    }
}

/// Keeps what is written.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Vec<u8>>>);

impl AsyncWrite for Answers {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().expect("nobody panics with it").extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Builder::new_current_thread().enable_time().build().expect("it needs nothing"))
}

fuzz_target!(|input: &[u8]| {
    let answers = Answers::default();
    let service = Service::new(Arc::new(Nothing), Methods::of_sandbox());
    runtime().block_on(session::run(service, input, answers.clone(), std::future::pending()));
    let said = answers.0.lock().expect("nobody panics with it");
    for line in said.split_inclusive(|&byte| byte == b'\n') {
        assert_eq!(line.last(), Some(&b'\n'), "half a line");
        let value: serde_json::Value = serde_json::from_slice(line).expect("a line is JSON");
        assert_eq!(value["jsonrpc"], "2.0");
        let kinds = ["result", "error", "method"].map(|key| value.get(key).is_some());
        assert_eq!(kinds.iter().filter(|&&is| is).count(), 1, "{value}");
    }
});
