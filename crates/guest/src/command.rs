//! From a request to a running program: what happens in the processes of one command.
//!
//! [`init`] is process 1 of the command's PID namespace and stays with the agent's rights; the
//! program is process 2, so that signals have their default effect on it. Both see the sandbox's root
//! as `/` and nothing else.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use proto::agent::{Ended, Exec, Request};
use proto::message;
use rustix::net::{SendFlags, send};
use serde::{Deserialize, Serialize};

pub(crate) use confinement::{Confinement, ConfinementError};
pub(crate) use init::{init, reap_all};

mod account;
mod confinement;
mod environment;
mod execute;
mod init;
mod proc;
mod program;
mod seccomp;
mod working_dir;

/// What the agent tells the init of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Send this signal to the process group of the program.
    Signal(i32),
    /// SIGTERM to every process of the command; SIGKILL if that has not ended it in time.
    Terminate {
        /// How long it has, milliseconds.
        grace_ms: u64,
    },
}

/// All that the processes of one command get from the agent.
#[derive(Debug)]
pub(crate) struct Launch {
    request: File,
    control: OwnedFd,
    stdio: [OwnedFd; 3],
}

impl Launch {
    /// How many descriptors it is sent as.
    pub(crate) const DESCRIPTORS: usize = 5;

    /// In the order in which the agent sends them.
    pub(crate) fn from_descriptors(descriptors: [OwnedFd; Self::DESCRIPTORS]) -> Self {
        let [request, control, stdin, stdout, stderr] = descriptors;
        Self { request: request.into(), control, stdio: [stdin, stdout, stderr] }
    }

    /// Tells the agent how the command ended. The first report counts.
    pub(crate) fn report(&self, ended: &Ended) {
        report(&self.control, ended);
    }

    /// The request, or why it cannot be understood.
    fn exec(&self) -> Result<Exec, String> {
        let length = self.request.metadata().map_err(|error| error.to_string())?.len();
        let mut body = vec![0; usize::try_from(length).map_err(|error| error.to_string())?];
        self.request.read_exact_at(&mut body, 0).map_err(|error| error.to_string())?;
        match message::decode(&body) {
            Ok(Request::Exec(exec)) => Ok(exec),
            Ok(_) => Err("not a command".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn report(control: &OwnedFd, ended: &Ended) {
    let report = postcard::to_stdvec(ended).expect("plain data can be encoded");
    // If the agent is not there, nobody wants to know.
    let _ = send(control, &report, SendFlags::NOSIGNAL);
}

/// What the kernel says of an error, without its number.
pub(crate) fn words(error: &io::Error) -> String {
    let mut words = error.to_string();
    if let Some(end) = words.find(" (os error") {
        words.truncate(end);
    }
    words
}
