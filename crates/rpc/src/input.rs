//! What clients send to a running command: input, and apart from it, because it overtakes input
//! that the command does not read, signals and window sizes. Each in the order of arrival.

use std::borrow::Cow;

use api::rpc::{Failure, Id, ResizeParams, SignalParams, Target};
use sandbox::agent::{Control, Input, WindowSize};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::line::MAX_LINE;
use crate::message;
use crate::outgoing::Outgoing;

/// Bytes of input that may wait for the commands of one session. At least a line, so that each can
/// be taken once the others are gone.
pub(crate) const ROOM: usize = MAX_LINE;

/// What an item takes beside its data, about.
const ITEM: usize = 256;

/// One message to a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Data(Vec<u8>),
    Eof,
    Resize(WindowSize),
    Signal(i32),
}

#[derive(Debug, Deserialize)]
struct DataParams<'a> {
    id: Id,
    #[serde(borrow)]
    data: Cow<'a, str>,
}

/// Reads the message that `method` with these parameters is, and for which request; `None` if it is
/// another sort of method.
pub(crate) fn parse(method: &str, params: &str) -> Option<Result<(Id, Message), Failure>> {
    let verb = method.strip_prefix("exec_pipe.").or_else(|| method.strip_prefix("exec_tty."))?;
    Some(match verb {
        "stdin" => message::params(method, params)
            .and_then(|DataParams { id, data }| Ok((id, Message::Data(message::decode(method, &data)?)))),
        "stdin_eof" => message::params(method, params).map(|Target { id }| (id, Message::Eof)),
        "resize" => message::params(method, params)
            .map(|ResizeParams { id, rows, cols }| (id, Message::Resize(WindowSize { rows, columns: cols }))),
        "signal" => {
            message::params(method, params).map(|SignalParams { id, signal }| (id, Message::Signal(signal)))
        }
        _ => return None,
    })
}

impl Message {
    /// Bytes that it takes while it waits.
    pub(crate) fn size(&self) -> u32 {
        let data = if let Self::Data(data) = self { data.len() } else { 0 };
        u32::try_from((data + ITEM).min(ROOM)).expect("at most ROOM")
    }
}

/// A message that waits.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) message: Message,
    /// The request to answer when it was taken, if it is one.
    pub(crate) receipt: Option<Id>,
    /// Keeps what waits bounded.
    pub(crate) _room: OwnedSemaphorePermit,
}

/// Takes messages for one command.
#[derive(Debug, Clone)]
pub(crate) struct InputSender {
    bytes: mpsc::UnboundedSender<Item>,
    orders: mpsc::UnboundedSender<Item>,
}

impl InputSender {
    /// Passes a message on, or gives it back if the command has ended.
    pub(crate) fn send(&self, item: Item) -> Result<(), Item> {
        let lane = match item.message {
            Message::Data(_) | Message::Eof => &self.bytes,
            Message::Resize(_) | Message::Signal(_) => &self.orders,
        };
        lane.send(item).map_err(|error| error.0)
    }
}

/// The messages for one command.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: Lane,
    orders: Lane,
}

#[derive(Debug)]
struct Lane {
    items: mpsc::UnboundedReceiver<Item>,
    /// Of the message that is being taken.
    receipt: Option<Id>,
}

pub(crate) fn channel() -> (InputSender, Inbox) {
    let (bytes, bytes_lane) = Lane::new();
    let (orders, orders_lane) = Lane::new();
    (InputSender { bytes, orders }, Inbox { bytes: bytes_lane, orders: orders_lane })
}

impl Inbox {
    /// Passes everything on for as long as it is polled. A command that has ended or does not read
    /// any more is nobody's fault.
    pub(crate) async fn feed(&mut self, input: Input, control: &Control, outgoing: &Outgoing) {
        tokio::join!(feed_bytes(&mut self.bytes, input, outgoing), give(&mut self.orders, control, outgoing));
    }

    /// Answers what was not taken: the command has ended.
    pub(crate) async fn settle(mut self, outgoing: &Outgoing) {
        for lane in [&mut self.bytes, &mut self.orders] {
            lane.items.close();
            lane.taken(outgoing).await;
            while lane.next().await.is_some() {
                lane.taken(outgoing).await;
            }
        }
    }
}

async fn feed_bytes(lane: &mut Lane, input: Input, outgoing: &Outgoing) {
    let mut input = Some(input);
    while let Some(item) = lane.next().await {
        if let Some(open) = &mut input {
            let passed = match &item.message {
                Message::Data(data) => open.write(data).await,
                _ => open.finish().await,
            };
            if passed.is_err() {
                input = None;
            }
        }
        drop(item);
        lane.taken(outgoing).await;
    }
}

async fn give(lane: &mut Lane, control: &Control, outgoing: &Outgoing) {
    while let Some(item) = lane.next().await {
        let given = match item.message {
            Message::Resize(size) => control.resize(size).await,
            Message::Signal(number) => control.signal(number).await,
            Message::Data(_) | Message::Eof => Ok(()),
        };
        if let Err(error) = given {
            tracing::debug!(%error, "cannot reach a command");
        }
        lane.taken(outgoing).await;
    }
}

impl Lane {
    fn new() -> (mpsc::UnboundedSender<Item>, Self) {
        let (sender, items) = mpsc::unbounded_channel();
        (sender, Self { items, receipt: None })
    }

    async fn next(&mut self) -> Option<Item> {
        let mut item = self.items.recv().await?;
        self.receipt = item.receipt.take();
        Some(item)
    }

    /// Answers the message that was taken last.
    async fn taken(&mut self, outgoing: &Outgoing) {
        if let Some(id) = &self.receipt {
            acknowledge(id, outgoing).await;
        }
        // Only now: this may be dropped while it waits, and settled later.
        self.receipt = None;
    }
}

/// Answers an input method.
pub(crate) async fn acknowledge(id: &Id, outgoing: &Outgoing) {
    // Without a client there is nobody to tell.
    let _ = outgoing.send(message::response(Some(id), &Ok("{}".to_owned()))).await;
}
