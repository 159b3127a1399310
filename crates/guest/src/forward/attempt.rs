//! The attempt to connect to a port of the sandbox, without waiting for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with, sockopt};

/// Where a program in the sandbox may listen for us, in this order.
const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Connects to the first address where somebody listens.
pub(super) struct Attempt {
    port: u16,
    /// How many of the addresses have been tried, or are.
    tried: usize,
    /// The socket that the kernel is connecting.
    pending: Option<OwnedFd>,
    /// Whether it has come to an end with that.
    settled: bool,
    /// What the first address gave.
    error: Option<Errno>,
}

impl Attempt {
    pub(super) fn new(port: u16) -> Self {
        Self { port, tried: 0, pending: None, settled: false, error: None }
    }

    /// epoll has something to say of the socket.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// The connected socket, or why there is none; `None` while it is not known. `watch` makes a new
    /// socket one that is waited for.
    pub(super) fn go_on(
        &mut self,
        watch: impl Fn(&OwnedFd) -> Result<(), Errno>,
    ) -> Option<Result<OwnedFd, Errno>> {
        loop {
            if let Some(socket) = self.pending.take() {
                if !self.settled {
                    self.pending = Some(socket);
                    return None;
                }
                match sockopt::socket_error(&socket) {
                    Ok(Ok(())) => return Some(Ok(socket)),
                    Ok(Err(error)) | Err(error) => drop(self.error.get_or_insert(error)),
                }
            }
            let address = ADDRESSES.get(self.tried).filter(|_| self.refused());
            let Some(address) = address else {
                return Some(Err(self.error.unwrap_or(Errno::CONNREFUSED)));
            };
            self.tried += 1;
            match begin(SocketAddr::new(*address, self.port), &watch) {
                Ok((socket, true)) => return Some(Ok(socket)),
                Ok((socket, false)) => (self.pending, self.settled) = (Some(socket), false),
                Err(error) => drop(self.error.get_or_insert(error)),
            }
        }
    }

    /// Whether nobody has said anything else than that nobody listens.
    fn refused(&self) -> bool {
        self.error.is_none_or(|error| error == Errno::CONNREFUSED)
    }
}

/// A socket, and whether it is connected already: on a loopback address it is, as a rule.
fn begin(
    address: SocketAddr,
    watch: impl Fn(&OwnedFd) -> Result<(), Errno>,
) -> Result<(OwnedFd, bool), Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match connect(&socket, &address) {
        Ok(()) => watch(&socket).map(|()| (socket, true)),
        Err(Errno::INPROGRESS) => watch(&socket).map(|()| (socket, false)),
        Err(error) => Err(error),
    }
}
