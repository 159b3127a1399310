//! Values on one stream: a four-byte little-endian length, then the value in postcard's encoding.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// The longest encoded message, bytes: an `exec` with a very large environment fits (Linux's own
/// limit for arguments and environment together is 6 MiB at the default stack limit).
pub const MAX_MESSAGE: u32 = 8 * 1024 * 1024;

/// Length of the prefix, bytes.
pub const PREFIX_LEN: usize = 4;

/// A message that cannot be sent or understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Over [`MAX_MESSAGE`].
    #[error("message of {0} bytes is over the limit of {MAX_MESSAGE}")]
    TooLong(usize),
    /// Not a value of the expected type.
    #[error("malformed message: {0}")]
    Malformed(postcard::Error),
}

/// The message with its prefix, ready to be written.
///
/// # Errors
/// [`MessageError::TooLong`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, MessageError> {
    let mut wire = postcard::to_extend(value, vec![0; PREFIX_LEN]).map_err(MessageError::Malformed)?;
    let length = wire.len() - PREFIX_LEN;
    let prefix = u32::try_from(length).ok().filter(|length| *length <= MAX_MESSAGE);
    let prefix = prefix.ok_or(MessageError::TooLong(length))?;
    wire[..PREFIX_LEN].copy_from_slice(&prefix.to_le_bytes());
    Ok(wire)
}

/// Length of the message behind `prefix`, bytes.
///
/// # Errors
/// [`MessageError::TooLong`]: nothing is allocated for it.
pub fn length(prefix: [u8; PREFIX_LEN]) -> Result<usize, MessageError> {
    let length = u32::from_le_bytes(prefix);
    if length > MAX_MESSAGE {
        return Err(MessageError::TooLong(length as usize));
    }
    Ok(length as usize)
}

/// Reads one message, without its prefix; trailing bytes are an error.
///
/// # Errors
/// [`MessageError::Malformed`].
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, MessageError> {
    match postcard::take_from_bytes(body).map_err(MessageError::Malformed)? {
        (value, []) => Ok(value),
        _ => Err(MessageError::Malformed(postcard::Error::DeserializeBadEncoding)),
    }
}
