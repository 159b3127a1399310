//! The forwarder: TCP connections from the host to what listens in the sandbox.
//!
//! There may be thousands of them, so they are not threads: one thread waits for all sockets and, with
//! [`Events`], for all streams, and nothing that it does waits. It keeps no bytes of its own: those from
//! the host stay in the stream's window until the socket takes them, those to the host in the socket
//! until there is credit for them. So who reads slowly stops nobody else.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::thread;

use proto::Port;
use proto::frame::StreamId;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::transport::{Channel, Events, Listener};
use connection::{Connection, Next, Workspace};

mod attempt;
mod connection;
mod relay;
#[cfg(test)]
mod tests;

/// What stands for [`Events`] where epoll otherwise has the number of a stream (32 bits).
const STREAMS: u64 = u64::MAX;

/// Sockets that one call may report.
const REPORTS: usize = 256;

/// Serves [`Port::Forward`] from a thread of its own.
pub(crate) fn serve(channel: &Channel) -> io::Result<()> {
    let events = Events::new()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &events, epoll::EventData::new_u64(STREAMS), epoll::EventFlags::IN)?;
    let listener = channel.listen_all(Port::Forward, events.clone());
    let forwarder = Forwarder {
        workspace: Workspace::new(epoll),
        events,
        listener,
        connections: HashMap::new(),
        unfinished: Vec::new(),
    };
    thread::Builder::new().name("forwarder".to_owned()).spawn(move || {
        if let Err(error) = forwarder.run() {
            eprintln!("matchlock: forwarder: {error}");
        }
    })?;
    Ok(())
}

struct Forwarder {
    workspace: Workspace,
    events: Events,
    listener: Listener,
    connections: HashMap<StreamId, Connection>,
    /// Connections that have had their turn and could go on.
    unfinished: Vec<StreamId>,
}

impl Forwarder {
    /// Until the channel ends.
    fn run(mut self) -> io::Result<()> {
        let mut reports = Vec::with_capacity(REPORTS);
        while !self.listener.is_closed() {
            let mut turns = std::mem::take(&mut self.unfinished);
            reports.clear();
            wait(&self.workspace.epoll, &mut reports, turns.is_empty())?;
            for report in &reports {
                match u32::try_from(report.data.u64()).ok().and_then(StreamId::from_number) {
                    Some(stream) => {
                        if let Some(connection) = self.connections.get_mut(&stream) {
                            connection.socket_is(report.flags);
                            turns.push(stream);
                        }
                    }
                    None => self.take_news(&mut turns),
                }
            }
            for stream in turns {
                self.turn(stream);
            }
        }
        Ok(())
    }

    /// New streams, and those to which something has happened.
    fn take_news(&mut self, turns: &mut Vec<StreamId>) {
        let news = self.events.take();
        if news.arrived {
            while let Some(stream) = self.listener.try_accept() {
                turns.push(stream.id());
                self.connections.insert(stream.id(), Connection::new(stream));
            }
        }
        turns.extend(news.streams);
    }

    fn turn(&mut self, stream: StreamId) {
        let Some(connection) = self.connections.get_mut(&stream) else { return };
        match connection.go_on(&mut self.workspace) {
            Next::Wait => {}
            Next::More => self.unfinished.push(stream),
            Next::Over => drop(self.connections.remove(&stream)),
        }
    }
}

fn wait(epoll: &OwnedFd, reports: &mut Vec<epoll::Event>, patient: bool) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match epoll::wait(epoll, spare_capacity(reports), (!patient).then_some(&now)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
