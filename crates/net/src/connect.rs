//! Connections to upstreams, as `http` asks for them and `upstream` makes them: the seam between the
//! two, so that each is tested without the other.

use std::error::Error;
use std::io;

use futures_util::future::BoxFuture;
use policy::{Denial, Permit};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection, TLS already taken off.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, and what is spoken on it.
pub(crate) type Connected = (Box<dyn Io>, Alpn);

/// The version of HTTP that is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// HTTP/1.1, or 1.0.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Why there is no connection to an upstream.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// The policy refuses all of its addresses.
    #[error("{}", .0.message())]
    Denied(Denial),
    /// Its name has no address, or nobody could say.
    #[error("its name could not be resolved")]
    Resolve(#[source] Box<dyn Error + Send + Sync>),
    /// None of its addresses could be reached.
    #[error("it could not be reached")]
    Dial(#[source] io::Error),
    /// It did not answer in time.
    #[error("it did not answer in time")]
    TimedOut,
    /// It could not prove who it is, or speaks no TLS.
    #[error("TLS with it failed")]
    Tls(#[source] Box<dyn Error + Send + Sync>),
}

/// Makes connections to what a policy permits.
pub(crate) trait Connect: Send + Sync {
    /// Connects to the host and port of the permit, with TLS if `tls`. `alpn` is what the guest speaks
    /// and is preferred; the answer is what the upstream speaks.
    fn connect<'a>(
        &'a self,
        permit: &'a Permit,
        tls: bool,
        alpn: Alpn,
    ) -> BoxFuture<'a, Result<Connected, ConnectError>>;
}
