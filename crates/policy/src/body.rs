//! What is done to the bodies of responses on their way to the guest: pure transformers, fed with pieces
//! of whatever size. Decoding is not here, they see plain bytes.

mod filter;
mod replace;
mod sse;

use thiserror::Error;

pub use filter::{Filter, Whole};
pub use replace::{EmptyFind, Replacer};
pub use sse::EventStream;

/// The longest line of an event stream in which something is to be replaced, bytes: a server must not
/// make us buffer for ever. Pictures in base64 fit.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// The longest body that is changed as a whole, before and after, bytes: it is in memory all at once.
pub const MAX_WHOLE: usize = 64 * 1024 * 1024;

/// A body cannot be changed as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BodyError {
    /// Over [`MAX_LINE`].
    #[error("a line of an event stream to be changed is longer than {0} bytes")]
    LineTooLong(usize),
    /// Over [`MAX_WHOLE`].
    #[error("a body to be changed as a whole is longer than {0} bytes")]
    TooLong(usize),
}
