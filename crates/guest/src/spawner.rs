//! The process that forks for every command: a copy of the agent from before it had threads, since a
//! process with threads cannot fork safely, and executing a program for every command takes longer.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::thread;
use std::time::Duration;

use proto::agent::{Ended, StartError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, send, sendmsg, shutdown,
    socketpair,
};
use rustix::process::{Pid, WaitOptions, wait};
use sys::fork::{Fork, Forked};
use thiserror::Error;

use crate::command::{self, Confinement, ConfinementError, Launch};
use crate::ending;

/// There is no process to start commands from.
#[derive(Debug, Error)]
pub(crate) enum SpawnerError {
    /// It could not be started.
    #[error("cannot start the spawner")]
    Start(#[source] io::Error),
    /// What confines commands could not be prepared.
    #[error(transparent)]
    Confinement(#[from] ConfinementError),
    /// It ended.
    #[error("the spawner ended")]
    Ended,
}

/// The agent's side of the spawner.
#[derive(Debug)]
pub(crate) struct Spawner(OwnedFd);

/// Forks the spawner. This process must have one thread.
pub(crate) fn start() -> Result<Spawner, SpawnerError> {
    let confinement = Confinement::prepare()?;
    let (ours, theirs) = socket_pair().map_err(SpawnerError::Start)?;
    match Fork::default().fork().map_err(SpawnerError::Start)? {
        Forked::Child => {
            drop(ours);
            serve(theirs.as_fd(), &confinement)
        }
        Forked::Parent(pid) => {
            thread::Builder::new()
                .name("reaper".to_owned())
                .spawn(move || reap_until(pid))
                .map_err(SpawnerError::Start)?;
            Ok(Spawner(ours))
        }
    }
}

impl Spawner {
    /// Starts what `request` (a [`proto::agent::Request`]) says, on these standard streams. Orders go
    /// into the socket that it gives, and the [`Ended`] comes out of it.
    pub(crate) fn launch(&self, request: &[u8], stdio: &[OwnedFd; 3]) -> io::Result<OwnedFd> {
        let mut file = File::from(memfd_create("request", MemfdFlags::CLOEXEC)?);
        file.write_all(request)?;
        let (ours, theirs) = socket_pair()?;
        let [stdin, stdout, stderr] = stdio.each_ref().map(|fd| fd.as_fd());
        let fds: [BorrowedFd<'_>; Launch::DESCRIPTORS] =
            [file.as_fd(), theirs.as_fd(), stdin, stdout, stderr];

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(Launch::DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&self.0, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(ours)
    }

    /// Starts nothing any more, and waits until the processes of all commands are gone, and with them
    /// their mount tables: a command is told of as ended a little before. False if that takes longer.
    pub(crate) fn close(&self, patience: Duration) -> bool {
        let patience = Timespec::try_from(patience).ok();
        let told = shutdown(&self.0, Shutdown::Write).is_ok();
        told && poll(&mut [PollFd::new(&self.0, PollFlags::IN)], patience.as_ref()) == Ok(1)
    }
}

fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Takes away processes that have ended. Without the spawner there will be no more commands.
fn reap_until(spawner: Pid) {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid != spawner => {}
            Err(Errno::INTR) => {}
            _ => ending::fail(&SpawnerError::Ended),
        }
    }
}

/// The life of the spawner: one fork for every launch, until the agent wants no more.
fn serve(agent: BorrowedFd<'_>, confinement: &Confinement) -> ! {
    if let Err(error) = sys::signal::ignore_children() {
        eprintln!("matchlock: spawner: {error}");
        std::process::exit(1);
    }
    loop {
        let launch = match receive(agent) {
            Ok(Some(launch)) => launch,
            Ok(None) => continue,
            Err(_) => retire(agent),
        };
        let own = Fork { own_pids_and_mounts: true, cgroup: None };
        match own.fork() {
            Ok(Forked::Child) => command::init(launch, confinement),
            Ok(Forked::Parent(_)) => {}
            Err(error) => {
                let error = StartError::Internal(format!("no process: {}", command::words(&error)));
                launch.report(&Ended::NotStarted(error));
            }
        }
    }
}

/// Tells the agent when all children have ended, and lives until the VM ends: an end of ours would be taken for
/// a failure.
fn retire(agent: BorrowedFd<'_>) -> ! {
    command::reap_all();
    let _ = send(agent, &[0], SendFlags::NOSIGNAL);
    loop {
        thread::park();
    }
}

/// Waits for the next launch; `None` for a message that is none.
fn receive(agent: BorrowedFd<'_>) -> io::Result<Option<Launch>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(Launch::DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received =
        recvmsg(agent, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds: Vec<OwnedFd> = fds.flatten().collect();
    Ok(fds.try_into().ok().map(Launch::from_descriptors))
}
