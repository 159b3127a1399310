//! The process that owns a sandbox, from its start to its end.

use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use api::forward::Binding;
use api::spec::SandboxSpec;
use image::store::LayerSet;
use sandbox::agent::Stdio;
use sandbox::timings::Timings;
use sandbox::volume::Volumes;
use sandbox::{Blueprint, Created, Engine, Sandbox, Why};
use tokio::time::timeout;
use vmm::kernel::Kernels;
use vmm::qemu::Qemu;

use crate::failure::{Failure, INTERRUPTED, Outcome};
use crate::session::{self, Attended, Connection};
use crate::signals::{self, Signals};
use crate::{host, terminal};

/// How long the guest may take to end what runs in a sandbox with anything to lose.
const GRACE: Duration = Duration::from_secs(10);

/// Exit code of a command whose sandbox was killed: 128 + SIGKILL.
const KILLED: u8 = 137;

/// What VMs are run with on this host.
pub(crate) struct Machinery {
    vmm: Qemu,
    kernel: PathBuf,
}

impl Machinery {
    /// Finds it; the earlier, the better: see [`Qemu::find`].
    pub(crate) fn find(spec: &SandboxSpec) -> Result<Self, Failure> {
        let vmm = Qemu::find(&host::path())?;
        Ok(Self { vmm, kernel: Kernels::new(host::cache()?).choose(spec.kernel.as_deref())? })
    }
}

/// Starts a sandbox, connects its command to this process, and stays until the sandbox ends: with
/// its command, or if it is kept, when a signal or another process says so. Gives the exit code of
/// the command. `announce` is called when the sandbox runs, and its command has not failed within
/// `patience`.
pub(crate) async fn own(
    created: Created,
    machinery: &Machinery,
    connection: Connection,
    signals: &mut Signals,
    timings: &mut Timings,
    patience: Option<Duration>,
    announce: impl FnOnce(&Sandbox, &[Binding]) -> Result<(), Failure>,
) -> Outcome {
    let mut owned = tokio::select! {
        started = Owned::start(created, machinery, timings) => started?,
        _ = signals.next() => return Err(Failure::interrupted()),
    };
    let (sandbox, bindings) = (Arc::clone(&owned.sandbox), owned.bindings.clone());
    let outcome = {
        let attended = pin!(owned.attend(connection, signals, patience.is_some()));
        announced(attended, patience, || announce(&sandbox, &bindings)).await
    };
    timings.mark("command");
    let message;
    let (grace, why) = match &outcome {
        Ok(End::Command(_)) => (owned.grace(), Why::Asked("its command ended")),
        Ok(End::NotStarted(_)) => (None, Why::Failed("its command could not be started")),
        Ok(End::Signal(_)) => (owned.grace(), Why::Asked("its owner was told to end it")),
        Ok(End::Asked(grace)) => (*grace, Why::Asked("it was asked to end")),
        Err(failure) => {
            message = failure.with_causes();
            (None, Why::Failed(&message))
        }
    };
    if let Ok(End::NotStarted(_)) = outcome {
        sandbox.discard_if_new();
    }
    sandbox.end(grace, why).await;
    owned.server.finish().await;
    timings.mark("teardown");
    Ok(match outcome? {
        End::Command(code) | End::NotStarted(code) | End::Signal(code) => code,
        End::Asked(_) => {
            eprintln!("matchlock: sandbox {} was ended from elsewhere", sandbox.id());
            KILLED
        }
    })
}

/// Calls `announce` once `attended` has not come to its end within `patience`.
async fn announced(
    mut attended: Pin<&mut impl Future<Output = Result<End, Failure>>>,
    patience: Option<Duration>,
    announce: impl FnOnce() -> Result<(), Failure>,
) -> Result<End, Failure> {
    if let Some(patience) = patience
        && let Ok(end) = timeout(patience, &mut attended).await
    {
        return end;
    }
    announce()?;
    attended.await
}

/// Tells the user of a sandbox that runs in this terminal.
pub(crate) fn announce(sandbox: &Sandbox, bindings: &[Binding]) -> Result<(), Failure> {
    announce_forwards(bindings);
    if sandbox.spec().keep {
        let id = sandbox.id();
        eprintln!("Sandbox {id} is running");
        eprintln!("  Connect: matchlock exec -it {id} -- sh");
        eprintln!("  Stop:    matchlock kill {id}");
    }
    Ok(())
}

/// Says which ports lead where.
pub(crate) fn announce_forwards(bindings: &[Binding]) {
    for binding in bindings {
        eprintln!("Forwarding {binding}");
    }
}

/// A sandbox that runs, with what makes it reachable.
struct Owned {
    sandbox: Arc<Sandbox>,
    bindings: Vec<Binding>,
    server: rpc::Server,
}

/// Why a sandbox ends, and with which exit code of its command.
enum End {
    Command(u8),
    NotStarted(u8),
    Signal(u8),
    Asked(Option<Duration>),
}

impl Owned {
    async fn start(created: Created, machinery: &Machinery, timings: &mut Timings) -> Result<Self, Failure> {
        let layers = layers(created.blueprint()).await?;
        timings.mark("layers");
        let volumes = Volumes::new(&host::home()?);
        let engine = Engine { vmm: &machinery.vmm, kernel: &machinery.kernel, layers, volumes };
        let sandbox = created.start(engine, timings).await?;
        let sandbox = Arc::new(sandbox);
        let server = rpc::Server::start(&sandbox)?;
        let bindings = Vec::new();
        Ok(Self { bindings, server, sandbox })
    }

    /// Stays with the command, and if the sandbox is kept, with the sandbox. Signals are the
    /// command's as long as that runs, but `in_background`: there is nobody there whose keys they
    /// could be.
    async fn attend(
        &mut self,
        connection: Connection,
        signals: &mut Signals,
        in_background: bool,
    ) -> Result<End, Failure> {
        let (passed_on, mut ours) =
            if in_background { (None, Some(&mut *signals)) } else { (Some(&mut *signals), None) };
        let code = tokio::select! {
            code = command(&self.sandbox, connection, passed_on) => code?,
            _ = signals::next(&mut ours) => return Ok(End::Signal(INTERRUPTED)),
            grace = self.server.asked_to_close() => return Ok(End::Asked(grace)),
        };
        let code = match code {
            Attended::NotStarted(code) => return Ok(End::NotStarted(code)),
            Attended::Ended(code) if !self.sandbox.spec().keep => return Ok(End::Command(code)),
            Attended::Ended(code) => code,
        };
        self.sandbox.record_exit(code);
        tokio::select! {
            _ = signals.next() => Ok(End::Signal(code)),
            grace = self.server.asked_to_close() => Ok(End::Asked(grace)),
            exit = self.sandbox.exited() => Err(sandbox::LaunchError::Exited(exit).into()),
        }
    }

    /// How long the guest may take to end.
    fn grace(&self) -> Option<Duration> {
        let spec = self.sandbox.spec();
        spec.graceful_shutdown.or_else(|| spec.has_something_to_lose().then_some(GRACE))
    }
}

/// Runs the sandbox's own command to its end, if it has one.
async fn command(
    sandbox: &Sandbox,
    connection: Connection,
    signals: Option<&mut Signals>,
) -> Result<Attended, Failure> {
    let stdio = match (connection.terminal, connection.stdin) {
        (true, _) => Stdio::Terminal { size: terminal::size() },
        (false, stdin) => Stdio::Pipes { stdin },
    };
    let Some(running) = sandbox.run(stdio).await? else { return Ok(Attended::Ended(0)) };
    match session::attend(session::local::command(running), connection, signals).await {
        Ok(attended) => Ok(attended),
        Err(session::Error::Agent(error)) => Err(sandbox.explain(error).await.into()),
        Err(session::Error::Own(failure)) => Err(failure),
    }
}

async fn layers(blueprint: &Blueprint) -> Result<LayerSet, Failure> {
    let (store, image) = (host::store()?, blueprint.image.clone());
    Ok(signals::blocking(move |cancel| store.open_layers(&image, cancel)).await?)
}
