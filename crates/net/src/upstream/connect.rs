//! Connecting for `http`.

use std::io;

use futures_util::future::BoxFuture;
use policy::Permit;

use super::{DialError, Upstream};
use crate::connect::{Alpn, Connect, ConnectError, Io};

const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

impl Connect for Upstream {
    fn connect<'a>(
        &'a self,
        permit: &'a Permit,
        tls: bool,
        alpn: Alpn,
    ) -> BoxFuture<'a, Result<(Box<dyn Io>, Alpn), ConnectError>> {
        Box::pin(async move {
            let stream = self.dial(permit).await?;
            if !tls {
                // Without TLS there is no way to ask.
                return Ok((Box::new(stream) as Box<dyn Io>, alpn));
            }
            let offer: &[&[u8]] = match alpn {
                Alpn::Http1 => &[HTTP_1_1],
                Alpn::Http2 => &[H2, HTTP_1_1],
            };
            let offer: Vec<_> = offer.iter().map(|protocol| protocol.to_vec()).collect();
            let stream = self.tls(stream, permit.host(), &offer).await?;
            let spoken =
                if stream.get_ref().1.alpn_protocol() == Some(H2) { Alpn::Http2 } else { Alpn::Http1 };
            Ok((Box::new(stream) as Box<dyn Io>, spoken))
        })
    }
}

impl From<DialError> for ConnectError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Denied(denial) => Self::Denied(*denial),
            DialError::Resolve(error) => Self::Resolve(Box::new(error)),
            DialError::Refused => Self::Dial(io::ErrorKind::ConnectionRefused.into()),
            DialError::Unreachable(error) => Self::Dial(error),
            DialError::TimedOut => Self::TimedOut,
            error => Self::Tls(Box::new(error)),
        }
    }
}
