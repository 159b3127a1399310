//! Why a host could not be connected to.

use std::io;

use policy::Denial;
use thiserror::Error;

use crate::resolve::ResolveError;

/// Why a host could not be connected to.
#[derive(Debug, Error)]
pub enum DialError {
    /// The policy does not let it, by the address that the name has.
    #[error("{0}")]
    Denied(Box<Denial>),
    /// The name has no address that we could learn.
    #[error("cannot resolve the name: {0}")]
    Resolve(#[from] ResolveError),
    /// Nobody listens on this port.
    #[error("connection refused")]
    Refused,
    /// There is no way to it.
    #[error("cannot connect: {0}")]
    Unreachable(#[source] io::Error),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// The server does not prove to be the host.
    #[error("the server's certificate is not good: {0}")]
    Certificate(rustls::CertificateError),
    /// It speaks no TLS, or none that we speak.
    #[error("the TLS handshake with the server failed: {0}")]
    Tls(#[source] io::Error),
    /// A name that cannot be in a certificate.
    #[error("the name cannot be verified by a certificate")]
    Name,
    /// We trust nobody, for lack of certificates.
    #[error("the host has no usable CA certificates (install ca-certificates, or set SSL_CERT_FILE): {0}")]
    Roots(String),
}

impl DialError {
    /// The status that tells an HTTP client of it.
    #[must_use]
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::Denied(_) => http::StatusCode::FORBIDDEN,
            Self::TimedOut => http::StatusCode::GATEWAY_TIMEOUT,
            _ => http::StatusCode::BAD_GATEWAY,
        }
    }

    /// What a failure to connect means.
    pub(super) fn of_connect(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Unreachable(error),
        }
    }

    /// What a failed handshake means.
    pub(super) fn of_tls(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::InvalidCertificate(certificate)) => Self::Certificate(certificate.clone()),
            _ => Self::Tls(error),
        }
    }
}
