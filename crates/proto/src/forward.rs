//! What the host asks on [`crate::Port::Forward`]: one stream for each TCP connection into the guest.
//!
//! [`Connect`] is the stream's first message and [`Answer`] the first in the other direction. After
//! [`Answer::Connected`] the stream carries the connection's bytes both ways, the end of a direction
//! is its end of file, and a reset is a reset. After any other answer the stream is finished.

use serde::{Deserialize, Serialize};

/// Connect to what listens on a port of the guest's loopback address: 127.0.0.1, else `::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// TCP port.
    pub port: u16,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Bytes follow.
    Connected,
    /// Nobody listens on that port.
    NotListening,
    /// There is no connection for another reason.
    Failed {
        /// The guest kernel's words.
        reason: String,
    },
}
