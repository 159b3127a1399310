//! What a connection is after an upgrade to WebSocket was granted at both ends: bytes both ways. Those of the
//! upstream are searched for values of secrets, which cannot be replaced inside of frames; one that is
//! found ends the connection.

use std::io;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use policy::secret::LeakScanner;
use policy::{Denial, Permit, Reason};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::body::causes;
use super::pool::Lease;
use super::record::Record;
use super::revoke::Revoked;

/// Bytes moved at a time.
const CHUNK: usize = 16 * 1024;

/// Both ends of a connection that was upgraded.
pub(super) struct Tunnel {
    pub(super) guest: OnUpgrade,
    pub(super) upstream: OnUpgrade,
    pub(super) permit: Permit,
    pub(super) scanner: Option<LeakScanner>,
    pub(super) revoked: Revoked,
    pub(super) record: Record,
    /// Keeps the upstream's connection.
    pub(super) lease: Lease,
}

#[derive(Debug, Error)]
enum TunnelError {
    #[error("the connection broke off")]
    Io(#[from] io::Error),
    #[error("a secret came back")]
    Leak,
}

impl Tunnel {
    /// Moves bytes until both ends have nothing more to say, or it must end.
    pub(super) async fn run(self) {
        let Self { guest, upstream, permit, mut scanner, revoked, record, lease } = self;
        let move_bytes = async {
            let (guest, upstream) = tokio::try_join!(guest, upstream).map_err(io::Error::other)?;
            let (from_guest, to_guest) = tokio::io::split(TokioIo::new(guest));
            let (from_upstream, to_upstream) = tokio::io::split(TokioIo::new(upstream));
            let up = copy(from_guest, to_upstream, |bytes| {
                record.sent(bytes.len());
                Ok(0)
            });
            let down = copy(from_upstream, to_guest, |bytes| {
                record.received(bytes.len());
                let Some(scanner) = &mut scanner else { return Ok(0) };
                if scanner.feed(bytes) { Err(TunnelError::Leak) } else { Ok(scanner.held()) }
            });
            tokio::try_join!(up, down).map(drop)
        };
        let moved = tokio::select! {
            moved = move_bytes => moved,
            denial = revoked => {
                record.denied(&denial);
                Ok(())
            }
        };
        match moved {
            Ok(()) => {}
            Err(TunnelError::Leak) => {
                record.denied(&Denial::new(Reason::SecretReflected, permit.host(), permit.port()));
            }
            Err(error) => record.failed(causes(&error)),
        }
        drop(lease);
    }
}

/// Moves bytes to the end, and says that it is the end. `look` is shown all of them and says how many of the
/// last must wait for those that follow.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut look: impl FnMut(&[u8]) -> Result<usize, TunnelError>,
) -> Result<(), TunnelError> {
    let mut buffer = Vec::new();
    let mut held = 0;
    loop {
        buffer.resize(held + CHUNK, 0);
        let count = from.read(&mut buffer[held..]).await?;
        if count == 0 {
            to.write_all(&buffer[..held]).await?;
            to.shutdown().await?;
            return Ok(());
        }
        let end = held + count;
        held = look(&buffer[held..end])?.min(end);
        to.write_all(&buffer[..end - held]).await?;
        to.flush().await?;
        buffer.copy_within(end - held..end, 0);
    }
}
