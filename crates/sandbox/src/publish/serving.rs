//! The task that takes connections from one listener, and one task for each of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use super::relay;
use crate::agent::Agent;

/// How long to wait when the kernel has no descriptor or memory for one more connection.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener that is served, with its connections, until this is dropped.
#[derive(Debug)]
pub(super) struct Serving(AbortHandle);

impl Serving {
    /// Serves `listener` for a port of the sandbox; `places` are what all connections share.
    pub(super) fn start(listener: Arc<TcpListener>, agent: Agent, port: u16, places: Arc<Semaphore>) -> Self {
        Self(tokio::spawn(serve(listener, agent, port, places)).abort_handle())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(listener: Arc<TcpListener>, agent: Agent, port: u16, places: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        // Only who has a place takes a connection: the others stay in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let client = accept(&listener).await;
        let agent = agent.clone();
        connections.spawn(async move {
            relay::relay(client, &agent, port).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// The next connection, however long it takes.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((client, _)) => return client,
            // The client is gone already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // As a rule we have too many files open, which passes.
            Err(error) => {
                tracing::debug!(%error, "cannot take a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
