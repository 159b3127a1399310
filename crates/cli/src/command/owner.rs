//! `matchlock owner`, which users do not call: a sandbox's owner that was left in the background by
//! `run -d` or `start`.
//!
//! Its standard input is the sandbox's lock, its standard output a pipe that takes the ID when the
//! sandbox runs. Until then it speaks on the standard error of whoever started it, then in a file.
//! Values of secrets come in memory that only the two of them have.

mod handed_over;

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use api::forward::Binding;
use api::{Explain as _, Kind, SandboxId};
use rustix::process::{Pid, Signal, chdir, kill_process, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stdin};
use sandbox::reconcile::ReconcileError;
use sandbox::timings::Timings;
use sandbox::{Created, Sandbox};

use crate::failure::{Failure, Outcome, RUN_FAILED};
use crate::network::Values;
use crate::owner::Machinery;
use crate::session::Connection;
use crate::signals::{self, Signals};
use crate::{output, owner, sandboxes};

/// Own a sandbox in the background.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    id: SandboxId,
    /// The descriptor that the values of its secrets can be read from.
    secrets: RawFd,
}

/// What the owner in the background complains about, in the sandbox's directory.
const COMPLAINTS: &str = "owner.log";

/// What became of a sandbox that was left to an owner in the background.
pub(crate) enum Detached {
    /// It runs.
    Running,
    /// Its owner has said why not, and ended with this exit code.
    Failed(u8),
}

/// Leaves a sandbox to an owner in the background and waits until it runs. If it does not, `tidy` is
/// to release what an owner left that was killed before it could do so itself.
pub(crate) async fn detach(
    created: Created,
    secrets: &Values,
    signals: &mut Signals,
    tidy: impl FnOnce(SandboxId) -> Result<(), ReconcileError>,
) -> Result<Detached, Failure> {
    let id = created.id();
    let detached = hand_over(created, secrets, signals).await;
    if !matches!(detached, Ok(Detached::Running))
        && let Err(error) = tidy(id)
        && error.kind() != Kind::NotFound
    {
        tracing::warn!(%id, %error, "something of it is left for `matchlock gc`");
    }
    detached
}

async fn hand_over(created: Created, secrets: &Values, signals: &mut Signals) -> Result<Detached, Failure> {
    let failed = |error| Failure::io("cannot start the sandbox's owner", error);
    let lock = created.lock().map_err(failed)?;
    let handed_over = handed_over::write(secrets).map_err(failed)?;
    // This very program, even if its file has been replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("matchlock").arg("owner").arg(created.id().to_string());
    command.arg(handed_over.as_raw_fd().to_string());
    // Where their values have come from, perhaps.
    for name in secrets.keys() {
        command.env_remove(name);
    }
    let mut child = command.stdin(lock).stdout(Stdio::piped()).spawn().map_err(failed)?;
    created.hand_over();
    // The lock is the owner's alone now, and so are the secrets.
    drop((command, handed_over));
    let pipe = child.stdout.take().expect("it was asked for");
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(pipe).read_line(&mut line).map(|_| line)
    });
    let line = tokio::select! {
        line = line => line.expect("reading does not panic").map_err(failed)?,
        _ = signals.next() => {
            // It may be gone by itself.
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            wait(child).await.map_err(failed)?;
            return Err(Failure::interrupted());
        }
    };
    if line.ends_with('\n') {
        return Ok(Detached::Running);
    }
    let status = wait(child).await.map_err(failed)?;
    if let Some(signal) = status.signal() {
        // Until it is out of the terminal's reach, Ctrl-C is for it, too.
        if signals::one_follows(signals).await {
            return Err(Failure::interrupted());
        }
        // It had no chance to say so itself.
        output::say(&format!("matchlock: signal {signal} ended the sandbox's owner before the sandbox ran"));
    }
    Ok(Detached::Failed(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(RUN_FAILED)))
}

async fn wait(mut child: Child) -> io::Result<ExitStatus> {
    tokio::task::spawn_blocking(move || child.wait()).await.expect("waiting does not panic")
}

pub(crate) fn run(args: &Args) -> Outcome {
    own(args).map_err(Failure::of_run)
}

fn own(args: &Args) -> Outcome {
    // Out of the terminal's reach: Ctrl-C there is not for us. It fails if we are there already.
    let _ = setsid();
    let site = sandboxes::site()?;
    let lock = stdin().try_clone_to_owned().and_then(|lock| {
        dup2_stdin(File::open("/dev/null")?)?;
        Ok(File::from(lock))
    });
    let lock = lock.map_err(|error| Failure::io("cannot take over the sandbox's lock", error))?;
    let secrets = handed_over::read(args.secrets)?;
    signals::caught(async |signals| {
        let created = Created::resume(&site, args.id, lock)?;
        let spec = &created.blueprint().spec;
        let machinery = Machinery::find(spec, secrets)?;
        let connection = Connection { stdin: false, terminal: false, detached: true, timeout: spec.timeout };
        let announce = |sandbox: &Sandbox, bindings: &[Binding]| {
            owner::announce_forwards(bindings);
            output::line(&sandbox.id().to_string())?;
            leave_terminal(&site.home.directory(args.id))
                .map_err(|error| Failure::io("cannot leave the terminal", error))
        };
        let timings = &mut Timings::start();
        owner::own(created, &site, &machinery, connection, signals, timings, announce).await
    })
}

/// Lets go of everything of whoever started us.
fn leave_terminal(directory: &Path) -> io::Result<()> {
    let complaints =
        File::options().append(true).create(true).mode(0o600).open(directory.join(COMPLAINTS))?;
    output::leave();
    dup2_stderr(complaints)?;
    dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    Ok(chdir("/")?)
}
