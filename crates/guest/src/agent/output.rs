//! From a command's standard output and error to the stream, until the command has ended and all that
//! it wrote is sent. Credit makes it wait, and so the command: nothing is kept.

use std::io::Read as _;
use std::os::fd::OwnedFd;

use proto::agent::{Ended, MAX_RECORD, RECORD_HEADER_LEN, RecordHeader, RecordKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};
use rustix::process::Signal;

use super::stdio::Output;
use crate::transport::{HEADROOM, Stream, StreamError};

/// Where the bytes of a command are in the buffer: behind both headers.
const PAYLOAD: usize = HEADROOM + RECORD_HEADER_LEN;

/// Bytes of the buffer: the longest record. A long one lets the command fill its pipe meanwhile; with
/// a short one, an emulated CPU is busy changing between the two. What is not used takes no memory.
const BUFFER: usize = PAYLOAD + MAX_RECORD as usize;

/// The longest report of a command's end: an error repeats parts of the request.
const MAX_REPORT: usize = 16 * 1024;

/// Moves all output, and gives how the command ended. `control` is the socket to its init.
pub(super) fn relay(stream: &Stream, mut outputs: Vec<Output>, control: &OwnedFd) -> Ended {
    let mut buffer = vec![0; BUFFER];
    let mut ended = None;
    loop {
        let ready = wait(&outputs, control, ended.is_some());
        if let Some(ended) = ended.take_if(|_| ready.outputs.is_empty()) {
            return ended;
        }
        // From the last, so that removing one does not move the others.
        for at in ready.outputs.into_iter().rev() {
            match pass(stream, &outputs[at], &mut buffer) {
                Ok(true) => {}
                Ok(false) => drop(outputs.remove(at)),
                Err(_) => {
                    // Nobody listens any more. The command's next write tells it so.
                    outputs.clear();
                    break;
                }
            }
        }
        if ready.ended && ended.is_none() {
            ended = Some(report(control));
        }
    }
}

/// Moves what one output has to say; `false` at its end.
fn pass(stream: &Stream, output: &Output, buffer: &mut [u8]) -> Result<bool, StreamError> {
    match output.file().read(&mut buffer[PAYLOAD..]) {
        Ok(length) if length > 0 => {
            let header = RecordHeader {
                kind: output.kind(),
                length: u32::try_from(length).expect("records are small"),
            };
            buffer[HEADROOM..PAYLOAD].copy_from_slice(&header.encode());
            stream.write_in_place(&mut buffer[..PAYLOAD + length]).map(|()| true)
        }
        // A terminal without programs gives an error.
        _ => Ok(false),
    }
}

struct Ready {
    /// Which outputs have something, or have ended.
    outputs: Vec<usize>,
    /// Whether the command's init has something to say.
    ended: bool,
}

/// Waits until there is something to do; not at all once the command has ended.
fn wait(outputs: &[Output], control: &OwnedFd, ended: bool) -> Ready {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = vec![PollFd::new(control, if ended { PollFlags::empty() } else { PollFlags::IN })];
    fds.extend(outputs.iter().map(|output| PollFd::new(output.file(), PollFlags::IN)));
    while poll(&mut fds, ended.then_some(&now)).is_err() {}
    let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
    let outputs = fds[1..].iter().enumerate().filter(|(_, fd)| ready(fd)).map(|(at, _)| at).collect();
    Ready { outputs, ended: ready(&fds[0]) }
}

/// What the command's init says. When it is gone without a word, somebody has killed it.
fn report(control: &OwnedFd) -> Ended {
    let mut report = vec![0; MAX_REPORT];
    let length = recv(control, &mut report, RecvFlags::empty()).map_or(0, |(length, _)| length);
    postcard::from_bytes(&report[..length]).unwrap_or(Ended::Signalled(Signal::KILL.as_raw()))
}

/// Sends one record.
pub(super) fn send(stream: &Stream, kind: RecordKind, payload: &[u8]) -> Result<(), StreamError> {
    let length = u32::try_from(payload.len()).expect("records are small");
    stream.write(&[&RecordHeader { kind, length }.encode(), payload])
}
