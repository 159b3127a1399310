//! The agent: takes the host's requests, one stream and one thread each, and knows which commands
//! run.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use proto::agent::{Answer, Request, StartError};
use proto::message;

use crate::spawner::Spawner;
use crate::transport::{Listener, Stream, StreamError};
use running::Running;

mod exec;
mod input;
mod output;
mod resize;
mod running;
mod signal;
mod stdio;
mod terminate;

/// Stack of a thread that serves a request; its buffers are elsewhere.
const STACK: usize = 128 * 1024;

/// How much longer than its grace period a command may take to end when the VM does, and then to disappear.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Streams overtake each other: a signal may be here before its command is known.
const OVERTAKEN_BY: Duration = Duration::from_millis(500);

/// The agent.
#[derive(Debug)]
pub(crate) struct Agent {
    spawner: Spawner,
    terminals: OwnedFd,
    /// `/dev/null`, from before any command could put something else in its place.
    null: File,
    commands: Mutex<Commands>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Commands {
    running: HashMap<u64, Arc<Running>>,
    /// The VM is about to end: nothing may be started any more.
    closed: bool,
}

impl Agent {
    /// An agent that starts commands with `spawner` and takes terminals from this `devpts`. No command may
    /// have run yet.
    pub(crate) fn new(spawner: Spawner, terminals: OwnedFd) -> io::Result<Arc<Self>> {
        let null = File::open("/dev/null")?;
        Ok(Arc::new(Self { spawner, terminals, null, commands: Mutex::default(), changed: Condvar::new() }))
    }

    /// Serves every stream that comes, from threads of its own.
    pub(crate) fn serve(self: &Arc<Self>, listener: Listener) -> io::Result<()> {
        let agent = Arc::clone(self);
        thread::Builder::new().name("agent".to_owned()).spawn(move || {
            while let Some(stream) = listener.accept() {
                let agent = Arc::clone(&agent);
                // Without a thread the stream is dropped, and so reset: the host hears of it.
                if let Err(error) = start_thread("request", move || agent.handle(stream)) {
                    eprintln!("matchlock: no thread for a request: {error}");
                }
            }
        })?;
        Ok(())
    }

    /// Ends all commands, with SIGTERM and after `grace` with SIGKILL, and waits until nothing of them is
    /// there. None can be started after this.
    pub(crate) fn end_all(&self, grace: Duration) {
        let mut commands = self.commands();
        commands.closed = true;
        for command in commands.running.values() {
            command.terminate(grace);
        }
        let patience = grace.saturating_add(LAST_WAIT);
        let running = |commands: &mut Commands| !commands.running.is_empty();
        drop(self.changed.wait_timeout_while(commands, patience, running));
        if !self.spawner.close(LAST_WAIT) {
            eprintln!("matchlock: some processes do not end");
        }
    }

    fn handle(&self, stream: Stream) {
        // Every other error is the host's loss of interest, which it may have.
        if let Err(StreamError::Message(error)) = self.try_handle(stream) {
            eprintln!("matchlock: request: {error}");
        }
    }

    fn try_handle(&self, stream: Stream) -> Result<(), StreamError> {
        let body = stream.read_message()?;
        let answer = match message::decode(&body)? {
            Request::Exec(exec) => return exec::serve(self, stream, &exec, &body),
            Request::Signal { id, signal } => signal::serve(self, id, signal),
            Request::Terminate { id, grace_ms } => terminate::serve(self, id, grace_ms),
            Request::Resize { id, size } => resize::serve(self, id, size),
        };
        stream.send::<Answer>(&answer)?;
        stream.finish()
    }

    /// Makes a command known as long as the guard lives.
    fn register(&self, id: u64, command: &Arc<Running>) -> Result<Registered<'_>, StartError> {
        let mut commands = self.commands();
        if commands.closed {
            return Err(shutting_down());
        }
        match commands.running.entry(id) {
            Entry::Occupied(_) => return Err(StartError::Internal(format!("a command {id} runs already"))),
            Entry::Vacant(entry) => drop(entry.insert(Arc::clone(command))),
        }
        self.changed.notify_all();
        Ok(Registered { agent: self, id })
    }

    /// The command of that id, if it runs.
    fn find(&self, id: u64) -> Option<Arc<Running>> {
        let unknown = |commands: &mut Commands| !commands.running.contains_key(&id);
        let commands = self.changed.wait_timeout_while(self.commands(), OVERTAKEN_BY, unknown);
        let (commands, _) = commands.unwrap_or_else(PoisonError::into_inner);
        commands.running.get(&id).map(Arc::clone)
    }

    fn commands(&self) -> MutexGuard<'_, Commands> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shutting_down() -> StartError {
    StartError::Internal("the sandbox is shutting down".to_owned())
}

/// A command is known.
struct Registered<'a> {
    agent: &'a Agent,
    id: u64,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.agent.commands().running.remove(&self.id);
        self.agent.changed.notify_all();
    }
}

fn start_thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(body).map(drop)
}
