//! The process that owns a sandbox, from its start to its end.

use std::future::pending;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use api::forward::Binding;
use api::spec::SandboxSpec;
use image::store::{ImageRecord, LayerSet, Store};
use policy::Policy;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sandbox::agent::Stdio;
use sandbox::publish::Publisher;
use sandbox::timings::Timings;
use sandbox::volume::Volumes;
use sandbox::{Created, Engine, Sandbox, Site, Why};
use tokio::time::timeout;
use vmm::Driver;
use vmm::kernel::Kernels;

use crate::failure::{Failure, Outcome};
use crate::network::Values;
use crate::progress::patiently;
use crate::session::{self, Attended, Connection};
use crate::signals::{self, Signals};
use crate::{host, output, terminal};

/// How long the guest may take to end what runs in a sandbox with anything to lose.
const GRACE: Duration = Duration::from_secs(10);

/// How long the command of a sandbox in the background is watched before the sandbox is announced.
const PATIENCE: Duration = Duration::from_millis(250);

/// Exit code of a command whose sandbox was killed: 128 + SIGKILL.
const KILLED: u8 = 137;

/// What a sandbox is run with on this host.
pub(crate) struct Machinery {
    vmm: Driver,
    kernel: PathBuf,
    policy: Option<Policy>,
}

impl Machinery {
    /// Finds it; the earlier, the better: see [`vmm::qemu::Qemu::find`].
    pub(crate) fn find(spec: &SandboxSpec, secrets: Values) -> Result<Self, Failure> {
        let vmm = Driver::choose(spec.backend, &host::path(), host::firecracker()?)?;
        let kernel = Kernels::new(host::cache()?).choose(spec.kernel.as_deref())?;
        Ok(Self { vmm, kernel, policy: sandbox::network::policy(spec, secrets)? })
    }

    /// The name of its VMM.
    pub(crate) fn backend(&self) -> &'static str {
        self.vmm.name()
    }
}

/// Starts a sandbox, connects its command to this process, and stays until the sandbox ends: with
/// its command, or if it is kept, when a signal or another process says so. Gives the exit code of
/// the command. `announce` is called when the sandbox runs; in the background, once its command has
/// not turned out to be a wrong one within [`PATIENCE`].
pub(crate) async fn own(
    created: Created,
    site: &Site,
    machinery: &Machinery,
    connection: Connection,
    signals: &mut Signals,
    timings: &mut Timings,
    announce: impl FnOnce(&Sandbox, &[Binding]) -> Result<(), Failure>,
) -> Outcome {
    let mut owned = tokio::select! {
        started = Owned::start(created, site, machinery, timings) => started?,
        _ = signals.next() => return Err(Failure::interrupted()),
    };
    let (sandbox, bindings) = (Arc::clone(&owned.sandbox), owned.bindings.clone());
    let outcome = {
        let attended = pin!(owned.attend(connection, signals));
        let patience = connection.detached.then_some(PATIENCE);
        announced(attended, patience, || announce(&sandbox, &bindings)).await
    };
    timings.mark("command");
    let message;
    let (grace, why) = match &outcome {
        Ok(End::Command(_)) => (owned.grace(), Why::Asked("its command ended")),
        Ok(End::NotStarted(_)) => (None, Why::Failed("its command could not be started")),
        Ok(End::Signal(_)) => (owned.grace(), Why::Asked("its owner was told to end it")),
        Ok(End::Asked(_, grace)) => (*grace, Why::Asked("it was asked to end")),
        Err(failure) => {
            message = failure.with_causes();
            (None, Why::Failed(&message))
        }
    };
    if let Ok(End::NotStarted(_)) = outcome {
        sandbox.discard_if_new();
    }
    sandbox.end(grace, why, signals::insistence(signals)).await;
    owned.server.finish().await;
    timings.mark("teardown");
    Ok(match outcome? {
        End::Command(code) | End::NotStarted(code) | End::Signal(code) => code,
        End::Asked(code, _) => {
            output::say(&format!("matchlock: sandbox {} was ended from elsewhere", sandbox.id()));
            code
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
        output::say(&format!(
            "Sandbox {id} is running\n  Connect: matchlock exec -it {id} -- sh\n  Stop:    matchlock kill {id}"
        ));
    }
    Ok(())
}

/// Says which ports lead where.
pub(crate) fn announce_forwards(bindings: &[Binding]) {
    for binding in bindings {
        output::say(&format!("Forwarding {binding}"));
    }
}

/// A sandbox that runs, with what makes it reachable.
struct Owned {
    sandbox: Arc<Sandbox>,
    bindings: Vec<Binding>,
    _publisher: Publisher,
    server: rpc::Server,
}

/// Why a sandbox ends, and with which exit code of its command.
enum End {
    Command(u8),
    NotStarted(u8),
    Signal(u8),
    Asked(u8, Option<Duration>),
}

impl Owned {
    async fn start(
        created: Created,
        site: &Site,
        machinery: &Machinery,
        timings: &mut Timings,
    ) -> Result<Self, Failure> {
        let layers = layers(&site.images, &created.blueprint().image).await?;
        timings.mark("layers");
        let volumes = Volumes::new(site.home.path());
        let policy = machinery.policy.clone();
        let engine = Engine { vmm: &machinery.vmm, kernel: &machinery.kernel, layers, volumes, policy };
        let what = format!("starting {}", created.id());
        let sandbox = patiently(what, created.start(engine, timings)).await?;
        let sandbox = Arc::new(sandbox);
        match Self::make_reachable(&sandbox) {
            Ok(owned) => Ok(owned),
            Err(failure) => {
                sandbox.discard_if_new();
                sandbox.end(None, Why::Failed(&failure.with_causes()), pending()).await;
                Err(failure)
            }
        }
    }

    fn make_reachable(sandbox: &Arc<Sandbox>) -> Result<Self, Failure> {
        allow_many_connections();
        let server = rpc::Server::start(sandbox)?;
        let mut publisher = sandbox.publisher();
        let spec = sandbox.spec();
        let bindings = publisher.replace(&spec.publish, &spec.publish_addresses)?;
        Ok(Self { sandbox: Arc::clone(sandbox), bindings, _publisher: publisher, server })
    }

    /// Stays with the command, and if the sandbox is kept, with the sandbox.
    async fn attend(&mut self, connection: Connection, signals: &mut Signals) -> Result<End, Failure> {
        let attended = {
            // In a terminal they are the command's, in the background they are for us.
            let (own, passed_on) =
                if connection.detached { (Some(&mut *signals), None) } else { (None, Some(&mut *signals)) };
            tokio::select! {
                attended = command(&self.sandbox, connection, passed_on) => attended?,
                _ = signals::next(own) => return Ok(End::Signal(KILLED)),
                grace = self.server.asked_to_close() => return Ok(End::Asked(KILLED, grace)),
            }
        };
        let code = match attended {
            Attended::NotStarted(code) => return Ok(End::NotStarted(code)),
            Attended::Ended(code) if !self.sandbox.spec().keep => return Ok(End::Command(code)),
            Attended::Ended(code) => code,
        };
        self.sandbox.record_exit(code);
        let id = self.sandbox.id();
        output::say(&format!(
            "The command has ended ({code}); sandbox {id} runs until Ctrl-C or `matchlock kill {id}`"
        ));
        tokio::select! {
            _ = signals.next() => Ok(End::Signal(code)),
            grace = self.server.asked_to_close() => Ok(End::Asked(code, grace)),
            exit = self.sandbox.exited() => Err(sandbox::LaunchError::Exited(exit).into()),
        }
    }

    /// How long the guest may take to end.
    fn grace(&self) -> Option<Duration> {
        let spec = self.sandbox.spec();
        spec.graceful_shutdown.or_else(|| spec.has_something_to_lose().then_some(GRACE))
    }
}

/// Each connection to a published port takes a file descriptor, and the usual limit is that of
/// programs that use `select(2)`.
fn allow_many_connections() {
    let limit = getrlimit(Resource::Nofile);
    // Whoever limits us for good is obeyed.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
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

async fn layers(store: &Store, image: &ImageRecord) -> Result<LayerSet, Failure> {
    let (store, image) = (store.clone(), image.clone());
    Ok(signals::blocking(move |cancel| store.open_layers(&image, cancel)).await?)
}
