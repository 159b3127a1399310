//! The methods: one file each. Here is what they have in common, and which there are.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use api::rpc::{Failure, Id};
use sandbox::publish::Publisher;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::host::Host;
use crate::input::Inbox;
use crate::message;
use crate::outgoing::{Gone, Outgoing};
use crate::requests::Cancel;
use crate::service::Held;

mod allow_list_add;
mod allow_list_delete;
pub(crate) mod cancel;
mod close;
mod exec;
mod exec_pipe;
mod exec_stream;
mod exec_tty;
mod log;
mod log_stream;
mod params;
mod port_forward;
mod status;

/// What a method answers: its result as JSON.
pub(crate) type Answer = Result<String, Failure>;

type Handler<H> = fn(Call<H>) -> Pin<Box<dyn Future<Output = Answer> + Send>>;

/// How a method runs beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// At the same time as others.
    Concurrent,
    /// Nothing else is begun before it has ended.
    Exclusive,
}

/// One method.
#[derive(Debug)]
pub(crate) struct Method<H: Host> {
    pub(crate) turn: Turn,
    pub(crate) handler: Handler<H>,
}

/// The methods that a session has. `cancel` and the input methods are always there: they are about
/// the session itself.
#[derive(Debug)]
pub struct Methods<H: Host>(HashMap<&'static str, Method<H>>);

impl<H: Host> Methods<H> {
    /// Those of a sandbox that is there.
    #[must_use]
    pub fn of_sandbox() -> Self {
        let mut methods = Self(HashMap::new());
        methods.add("allow_list_add", |call| Box::pin(allow_list_add::run(call)));
        methods.add("allow_list_delete", |call| Box::pin(allow_list_delete::run(call)));
        methods.add("exec", |call| Box::pin(exec::run(call)));
        methods.add("exec_stream", |call| Box::pin(exec_stream::run(call)));
        methods.add("exec_pipe", |call| Box::pin(exec_pipe::run(call)));
        methods.add("exec_tty", |call| Box::pin(exec_tty::run(call)));
        methods.add("log", |call| Box::pin(log::run(call)));
        methods.add("log_stream", |call| Box::pin(log_stream::run(call)));
        methods.add("port_forward", |call| Box::pin(port_forward::run(call)));
        methods.add("status", |call| Box::pin(status::run(call)));
        methods
            .0
            .insert("close", Method { turn: Turn::Exclusive, handler: |call| Box::pin(close::run(call)) });
        methods
    }

    fn add(&mut self, name: &'static str, handler: Handler<H>) {
        self.0.insert(name, Method { turn: Turn::Concurrent, handler });
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Method<H>> {
        self.0.get(name)
    }
}

/// One request, in the hands of its method.
#[derive(Debug)]
pub(crate) struct Call<H: Host> {
    pub(crate) id: Id,
    pub(crate) method: String,
    /// A JSON object.
    pub(crate) params: String,
    pub(crate) host: Arc<H>,
    pub(crate) outgoing: Outgoing,
    pub(crate) cancel: Cancel,
    pub(crate) inbox: Inbox,
    pub(crate) collected: Held,
    /// The ports that the session has published.
    pub(crate) published: Arc<Mutex<Option<Publisher>>>,
}

impl<H: Host> Call<H> {
    pub(crate) fn params<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        message::params(&self.method, &self.params)
    }
}

impl From<Gone> for Failure {
    /// Nobody will read it.
    fn from(_: Gone) -> Self {
        Self::cancelled()
    }
}
