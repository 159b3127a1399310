//! The task that moves bytes between the socket and the shared state.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use proto::frame::{FrameError, HEADER_LEN, Header, MAX_PAYLOAD};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::ChannelError;
use super::state::{QUEUE_LIMIT, Shared};

/// Bytes read from the socket at a time: several whole frames.
const INBOX: usize = 4 * (HEADER_LEN + MAX_PAYLOAD as usize);

/// Runs until the guest is gone or misbehaves.
pub(super) async fn run(shared: Arc<Shared>, socket: UnixStream) {
    let (reader, writer) = socket.into_split();
    let end = tokio::select! {
        end = receive(&shared, reader) => end,
        never = transmit(&shared, writer) => match never {},
    };
    tracing::debug!(%end, "channel ended");
    shared.finish(end);
}

async fn receive(shared: &Shared, mut reader: OwnedReadHalf) -> ChannelError {
    let mut inbox = Inbox::default();
    loop {
        // A guest that makes us answer but does not read the answers is not listened to.
        shared.room_to_answer().await;
        match reader.read(inbox.space()).await {
            Ok(0) => return ChannelError::Gone,
            Ok(read) => inbox.end += read,
            // QEMU was killed with bytes of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return ChannelError::Gone,
            Err(error) => return ChannelError::Io(Arc::new(error)),
        }
        if let Err(end) = shared.receive_all(&mut inbox) {
            return end;
        }
    }
}

async fn transmit(shared: &Shared, mut writer: OwnedWriteHalf) -> Infallible {
    let mut batch = Vec::with_capacity(QUEUE_LIMIT);
    loop {
        shared.to_send.notified().await;
        shared.take_queue(&mut batch);
        if writer.write_all(&batch).await.is_err() {
            // Nobody reads any more; what the guest said before its end is still to be read, and
            // the reading half finds that end.
            shared.deafen();
            return std::future::pending().await;
        }
        batch.clear();
    }
}

/// Bytes from the guest, cut into frames.
#[derive(Debug)]
pub(super) struct Inbox {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: vec![0; INBOX].into_boxed_slice(), start: 0, end: 0 }
    }
}

impl Inbox {
    /// Where to read to; never empty, because an incomplete frame is shorter than the inbox.
    fn space(&mut self) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.bytes[self.end..]
    }

    /// The next complete frame. A header is judged as soon as it is there, before its payload.
    pub(super) fn next(&mut self) -> Result<Option<(Header, &[u8])>, FrameError> {
        let bytes = &self.bytes[self.start..self.end];
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let header = Header::decode(header)?;
        let Some(payload) = rest.get(..header.payload_len()) else { return Ok(None) };
        self.start += HEADER_LEN + payload.len();
        Ok(Some((header, payload)))
    }
}
