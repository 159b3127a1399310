//! The listening socket.

use std::io;
use std::net::SocketAddr;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

/// Connections that the kernel keeps for us while we cannot take them.
const BACKLOG: u32 = 1024;

/// A socket that listens until this is dropped, which all are to do when their sandbox ends.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    /// Counted by who waits until nobody listens any more.
    open: watch::Receiver<bool>,
}

impl Listener {
    /// Listens on `address`, port 0 being any that is free, while `open` is true.
    pub(super) fn new(address: SocketAddr, open: watch::Receiver<bool>) -> io::Result<Self> {
        Ok(Self { socket: listen(address)?, open })
    }

    /// Resolves when this is to be dropped.
    pub(super) async fn closing(&self) {
        // An error means that nobody could say so any more.
        let _ = self.open.clone().wait_for(|open| !open).await;
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            sockopt::set_ipv6_v6only(&socket, true)?;
            socket
        }
    };
    // Connections that have ended not long ago keep no port from us; another listener does.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
