//! The frame header of the multiplexer: 12 bytes, little-endian, before every payload.
//!
//! ```text
//! 0       4      5         8        12
//! | stream | kind | zero    | length  | payload (length bytes, `Data` only)
//! ```
//!
//! `length` is the payload's length for [`Kind::Data`] and the frame's argument for every other
//! kind (a port, a number of bytes of credit, a [`Reason`]), so a frame never needs a second parse.

use thiserror::Error;

/// Length of an encoded [`Header`], bytes.
pub const HEADER_LEN: usize = 12;

/// The longest payload of one frame, bytes. Stops a hostile peer from making us allocate.
pub const MAX_PAYLOAD: u32 = 64 * 1024;

/// A stream's number: odd if the host opened it, even if the guest did, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub(crate) u32);

impl StreamId {
    /// The number as it is on the wire.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    /// The stream of that wire number; zero is none.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }
}

/// Why a stream was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Nobody listens on that port.
    Refused = 1,
    /// The side that resets has lost interest: its client is gone.
    Cancelled = 2,
    /// Too many streams are open.
    TooManyStreams = 3,
}

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// A new stream to `port` of the receiver.
    Open {
        /// Port number, see [`crate::Port`].
        port: u32,
    },
    /// `length` bytes of payload follow.
    Data {
        /// At most [`MAX_PAYLOAD`].
        length: u32,
    },
    /// The receiver of data may be sent `bytes` more on this stream.
    Credit {
        /// Never zero.
        bytes: u32,
    },
    /// No more data will come from the sender of this frame (half-close).
    Finish,
    /// The stream is gone in both directions.
    Reset {
        /// Why.
        reason: Reason,
    },
}

/// One decoded frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The stream it belongs to.
    pub stream: StreamId,
    /// What it says.
    pub frame: Frame,
}

/// A frame header that no honest peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Stream number zero.
    #[error("frame for stream 0")]
    NoStream,
    /// Bytes 5 to 7 must be zero.
    #[error("reserved bytes of a frame are not zero")]
    Reserved,
    /// An unknown kind.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// A payload over [`MAX_PAYLOAD`].
    #[error("frame of {0} bytes is over the limit of {MAX_PAYLOAD}")]
    TooLong(u32),
    /// Credit of zero bytes, or an empty data frame: noise that would cost us work.
    #[error("empty frame")]
    Empty,
    /// An unknown reset reason.
    #[error("unknown reset reason {0}")]
    Reason(u32),
}

impl Header {
    /// The header as it goes over the wire.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let (kind, argument) = match self.frame {
            Frame::Open { port } => (1, port),
            Frame::Data { length } => (2, length),
            Frame::Credit { bytes } => (3, bytes),
            Frame::Finish => (4, 0),
            Frame::Reset { reason } => (5, reason as u32),
        };
        let mut wire = [0; HEADER_LEN];
        wire[..4].copy_from_slice(&self.stream.0.to_le_bytes());
        wire[4] = kind;
        wire[8..].copy_from_slice(&u32::to_le_bytes(argument));
        wire
    }

    /// Reads a header; everything the type cannot say is an error.
    ///
    /// # Errors
    /// See [`FrameError`]; the connection cannot go on after one.
    pub fn decode(wire: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let [s0, s1, s2, s3, kind, r0, r1, r2, a0, a1, a2, a3] = *wire;
        let stream =
            StreamId::from_number(u32::from_le_bytes([s0, s1, s2, s3])).ok_or(FrameError::NoStream)?;
        if [r0, r1, r2] != [0; 3] {
            return Err(FrameError::Reserved);
        }
        let argument = u32::from_le_bytes([a0, a1, a2, a3]);
        let frame = match kind {
            1 => Frame::Open { port: argument },
            2 | 3 if argument == 0 => return Err(FrameError::Empty),
            2 if argument > MAX_PAYLOAD => return Err(FrameError::TooLong(argument)),
            2 => Frame::Data { length: argument },
            3 => Frame::Credit { bytes: argument },
            4 => Frame::Finish,
            5 => Frame::Reset {
                reason: match argument {
                    1 => Reason::Refused,
                    2 => Reason::Cancelled,
                    3 => Reason::TooManyStreams,
                    other => return Err(FrameError::Reason(other)),
                },
            },
            other => return Err(FrameError::Kind(other)),
        };
        Ok(Self { stream, frame })
    }

    /// Bytes of payload that follow this header.
    #[must_use]
    pub fn payload_len(self) -> usize {
        match self.frame {
            Frame::Data { length } => length as usize,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(wire in any::<[u8; HEADER_LEN]>(), kind in 0u8..7) {
            let mut wire = wire;
            wire[4] = kind;
            wire[5..8].fill(0);
            if let Ok(header) = Header::decode(&wire) {
                let again = Header::decode(&header.encode());
                prop_assert_eq!(again, Ok(header));
                prop_assert!(header.payload_len() <= MAX_PAYLOAD as usize);
            }
        }
    }

    #[test]
    fn wild_headers_are_refused() {
        let good = Header { stream: StreamId(1), frame: Frame::Data { length: MAX_PAYLOAD } }.encode();
        let with = |at: usize, byte: u8| {
            let mut wire = good;
            wire[at] = byte;
            Header::decode(&wire)
        };
        assert_eq!(with(0, 0), Err(FrameError::NoStream));
        assert_eq!(with(4, 9), Err(FrameError::Kind(9)));
        assert_eq!(with(6, 1), Err(FrameError::Reserved));
        assert_eq!(with(8, 1), Err(FrameError::TooLong(MAX_PAYLOAD + 1)));
        assert_eq!(with(10, 0), Err(FrameError::Empty));
        assert_eq!(with(4, 5), Err(FrameError::Reason(MAX_PAYLOAD)));
    }
}
