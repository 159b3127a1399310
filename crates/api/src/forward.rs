//! Ports of a sandbox that are forwarded from the host.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A port to forward, as users write it: `[LOCAL:]REMOTE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Forward {
    /// On the host; 0 for any that is free.
    pub local_port: u16,
    /// In the sandbox.
    pub remote_port: u16,
}

/// Not `[LOCAL:]REMOTE`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not [LOCAL:]REMOTE: ports are numbers from 1 to 65535, LOCAL may be 0 for any free one")]
pub struct InvalidForward(String);

impl FromStr for Forward {
    type Err = InvalidForward;

    fn from_str(text: &str) -> Result<Self, InvalidForward> {
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        // `+80` is a number for Rust, and for nobody else.
        let port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
        match (port(local), port(remote)) {
            (Some(local_port), Some(remote_port @ 1..)) => Ok(Self { local_port, remote_port }),
            _ => Err(InvalidForward(text.to_owned())),
        }
    }
}

/// A port of the host that leads to one of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Of the host.
    pub address: IpAddr,
    /// On the host.
    pub local_port: u16,
    /// In the sandbox.
    pub remote_port: u16,
}

/// `127.0.0.1:8080 -> sandbox:80`.
impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = SocketAddr::new(self.address, self.local_port);
        write!(f, "{local} -> sandbox:{}", self.remote_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_one_port_or_two() {
        let forward = |local_port, remote_port| Ok(Forward { local_port, remote_port });
        assert_eq!("80".parse(), forward(80, 80));
        assert_eq!("8080:80".parse(), forward(8080, 80));
        assert_eq!("0:80".parse(), forward(0, 80));
        for wrong in ["", ":", "0", "80:", ":80", "80:0", "65536", "+80", "-1", "1:2:3", "http", " 80"] {
            assert!(wrong.parse::<Forward>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn bindings_read_as_addresses() {
        let binding =
            |address: &str| Binding { address: address.parse().unwrap(), local_port: 8080, remote_port: 80 };
        assert_eq!(binding("127.0.0.1").to_string(), "127.0.0.1:8080 -> sandbox:80");
        assert_eq!(binding("::1").to_string(), "[::1]:8080 -> sandbox:80");
    }
}
