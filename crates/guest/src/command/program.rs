//! The last steps of the process that becomes the program, from the agent's rights to the command's.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use proto::agent::{Exec, StartError, Stdio};
use rustix::fs::fchown;
use rustix::process::{Gid, Uid, ioctl_tiocsctty, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::system::uname;

use super::account::Account;
use super::environment::Environment;
use super::{Confinement, execute, words, working_dir};
use crate::ending;

/// Becomes the program of `exec`. Returns only if that failed.
pub(super) fn run(exec: &Exec, stdio: &[OwnedFd; 3], confinement: &Confinement) -> StartError {
    match try_run(exec, stdio, confinement) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_run(exec: &Exec, stdio: &[OwnedFd; 3], confinement: &Confinement) -> Result<Infallible, StartError> {
    let account = Account::find(exec.user.as_deref())
        .map_err(|_| StartError::UnknownUser { user: exec.user.clone().unwrap_or_default() })?;
    own_streams(exec.stdio, stdio, &account).map_err(|error| internal("standard streams", &error))?;
    lead_session(exec.stdio, stdio).map_err(|error| internal("session", &error))?;
    // Inherited from the agent it would exempt the command; without CAP_SYS_RESOURCE it cannot be
    // lowered again.
    fs::write("/proc/self/oom_score_adj", "0").map_err(|error| internal("oom_score_adj", &error))?;
    if let Some(wanted) = &exec.working_dir {
        working_dir::enter(wanted, &account)?;
    }
    let terminal = matches!(exec.stdio, Stdio::Terminal { .. });
    let environment = Environment::new(&exec.env, &account.home, uname().nodename().to_bytes(), terminal);
    sys::exec::close_others_on_exec().map_err(|error| internal("close_range", &error))?;
    sys::signal::restore_defaults().map_err(|error| internal("signals", &error))?;
    confinement
        .apply(&account, exec.privileged)
        .map_err(|error| StartError::Internal(ending::with_causes(&error)))?;
    Err(execute::execute(&exec.argv, &environment))
}

/// Gives the streams to the user, so that `/dev/stdout` and the terminal can be opened again.
fn own_streams(kind: Stdio, stdio: &[OwnedFd; 3], account: &Account) -> io::Result<()> {
    if account.uid == 0 {
        return Ok(());
    }
    let [stdin, stdout, stderr] = stdio;
    let streams: &[&OwnedFd] = match kind {
        Stdio::Terminal { .. } => &[stdin],
        Stdio::Pipes { stdin: true } => &[stdin, stdout, stderr],
        // Standard input is /dev/null, which is everybody's.
        Stdio::Pipes { stdin: false } => &[stdout, stderr],
    };
    for stream in streams {
        // A terminal keeps its group, `tty`.
        let group = match kind {
            Stdio::Terminal { .. } => None,
            Stdio::Pipes { .. } => Some(Gid::from_raw(account.gid)),
        };
        fchown(stream, Some(Uid::from_raw(account.uid)), group)?;
    }
    Ok(())
}

fn lead_session(kind: Stdio, stdio: &[OwnedFd; 3]) -> io::Result<()> {
    let [stdin, stdout, stderr] = stdio;
    setsid()?;
    if let Stdio::Terminal { .. } = kind {
        ioctl_tiocsctty(stdin)?;
    }
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    Ok(dup2_stderr(stderr)?)
}

fn internal(what: &str, error: &io::Error) -> StartError {
    StartError::Internal(format!("{what}: {}", words(error)))
}
