//! HTTP between a guest and its upstreams: one pipeline for both versions that asks `policy` about every
//! request and response, and streams what it lets through.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use policy::host::Host;
use policy::policy::{Permit, Policy};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::connect::{Alpn, Connect, Io};
use crate::report::Reporter;

/// What one connection of a guest needs.
pub(crate) struct Session {
    /// The policy, whatever it is at the time.
    pub(crate) policy: watch::Receiver<Policy>,
    /// The name in the guest's ClientHello, if the connection is TLS.
    pub(crate) https: Option<Host>,
    /// Where the guest connected to.
    pub(crate) destination: SocketAddr,
    /// Who connects to upstreams.
    pub(crate) upstream: Arc<dyn Connect>,
    /// Who is told of every request.
    pub(crate) reporter: Reporter,
    /// Who answers callbacks of rules.
    pub(crate) callback_socket: Option<PathBuf>,
    /// A connection that was already made, to find out what the upstream speaks.
    pub(crate) first: Option<(Permit, Box<dyn Io>, Alpn)>,
}

/// Serves one connection of a guest until it ends. Whatever it started ends with it.
pub(crate) async fn serve<S>(guest: S, version: Alpn, session: Session)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
}
