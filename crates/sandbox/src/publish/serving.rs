//! The task that takes connections from one listener, and one task for each of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::listen::Listener;
use super::{Ports, relay};

/// How long to wait when the kernel has no descriptor or memory for one more connection.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener that is served, with its connections, until this is dropped.
#[derive(Debug)]
pub(super) struct Serving(AbortHandle);

impl Serving {
    /// Serves `listener` for a port of the sandbox.
    pub(super) fn start(listener: Arc<Listener>, ports: Ports, port: u16) -> Self {
        let served = async move {
            tokio::select! {
                () = serve(&listener.socket, ports, port) => {}
                () = listener.closing() => {}
            }
        };
        Self(tokio::spawn(served).abort_handle())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(listener: &TcpListener, Ports { agent, places, .. }: Ports, port: u16) {
    let mut connections = JoinSet::new();
    loop {
        // Only who has a place takes a connection: the others stay in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let client = accept(listener).await;
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
