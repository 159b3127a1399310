//! Ports of this machine that lead into a sandbox.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where published ports listen unless asked otherwise: on this machine's own address.
pub const DEFAULT_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A TCP port of this machine, and the port in the sandbox that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Ports", into = "Ports")]
pub struct Forward {
    local_port: u16,
    remote_port: u16,
}

/// What is written for [`Forward`], not checked yet.
#[derive(Serialize, Deserialize)]
struct Ports {
    local_port: u16,
    remote_port: u16,
}

/// What stands between this machine and the sandbox for one [`Forward`] and one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Binding {
    /// Address of this machine.
    pub address: IpAddr,
    /// The port that it has; never 0.
    pub local_port: u16,
    /// Port in the sandbox.
    pub remote_port: u16,
}

/// Not a [`Forward`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidForward {
    /// Not of the form `[LOCAL:]REMOTE`.
    #[error("{0:?} is not [LOCAL:]REMOTE with ports from 1 to 65535 (LOCAL may be 0: any free port)")]
    Form(String),
    /// There is no port 0 in a sandbox.
    #[error("a port in the sandbox is from 1 to 65535, not 0")]
    NoRemote,
}

impl Forward {
    /// From `local_port`, or with 0 from one that the kernel chooses, to `remote_port` of the sandbox.
    ///
    /// # Errors
    /// If `remote_port` is 0.
    pub fn new(local_port: u16, remote_port: u16) -> Result<Self, InvalidForward> {
        match remote_port {
            0 => Err(InvalidForward::NoRemote),
            1.. => Ok(Self { local_port, remote_port }),
        }
    }

    /// Port of this machine; 0 for any that is free.
    #[must_use]
    pub fn local_port(self) -> u16 {
        self.local_port
    }

    /// Port in the sandbox, never 0.
    #[must_use]
    pub fn remote_port(self) -> u16 {
        self.remote_port
    }
}

impl TryFrom<Ports> for Forward {
    type Error = InvalidForward;

    fn try_from(ports: Ports) -> Result<Self, InvalidForward> {
        Self::new(ports.local_port, ports.remote_port)
    }
}

impl From<Forward> for Ports {
    fn from(forward: Forward) -> Self {
        Self { local_port: forward.local_port, remote_port: forward.remote_port }
    }
}

impl FromStr for Forward {
    type Err = InvalidForward;

    fn from_str(text: &str) -> Result<Self, InvalidForward> {
        let wrong = || InvalidForward::Form(text.to_owned());
        let port = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse().map_err(|_| wrong()),
            false => Err(wrong()),
        };
        match text.split_once(':') {
            Some((local, remote)) => Self::new(port(local)?, port(remote)?),
            None => port(text).and_then(|both| Self::new(both, both)),
        }
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.local_port, self.remote_port)
    }
}

impl Binding {
    /// Where to connect to.
    #[must_use]
    pub fn local(self) -> SocketAddr {
        SocketAddr::new(self.address, self.local_port)
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> sandbox:{}", self.local(), self.remote_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_is_both() {
        assert_eq!("80".parse(), Forward::new(80, 80));
        assert_eq!("8080:80".parse(), Forward::new(8080, 80));
        assert_eq!("0:80".parse(), Forward::new(0, 80));
        assert_eq!("8080:80".parse::<Forward>().unwrap().to_string(), "8080:80");
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for wrong in ["", ":", "80:", ":80", "+80", "80:+80", " 80", "65536", "1:2:3", "http", "-1"] {
            assert_eq!(wrong.parse::<Forward>(), Err(InvalidForward::Form(wrong.to_owned())), "{wrong:?}");
        }
        for zero in ["0", "80:0", "0:0"] {
            assert_eq!(zero.parse::<Forward>(), Err(InvalidForward::NoRemote));
        }
    }
}
