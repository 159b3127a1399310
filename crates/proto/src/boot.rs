//! The boot conversation on [`crate::Port::Boot`], opened by the guest.
//!
//! ```text
//! guest: Hello            host: BootConfig
//! guest: Progress…        Stage by stage, then Ready or Failed
//!                         host: Control, at any time after Ready
//! ```
//!
//! Everything before [`Hello`] is the same for every sandbox, so a VM that has said it can be a
//! template for many; nothing secret or random may exist in the guest before [`BootConfig`].

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The guest's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::VERSION`] of the guest binary.
    pub version: u32,
    /// Microseconds since the guest kernel started (`CLOCK_BOOTTIME`).
    pub uptime_us: u64,
}

/// All that makes this sandbox this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootConfig {
    /// Host name, also written to `/etc/hostname` and `/etc/hosts`.
    pub hostname: String,
    /// Further lines of `/etc/hosts`, in order.
    pub hosts: Vec<HostEntry>,
    /// Nameservers of `/etc/resolv.conf`, in order.
    pub dns_servers: Vec<IpAddr>,
    /// The host's wall clock when this was sent, nanoseconds since the Unix epoch.
    pub clock_unix_ns: u64,
    /// Fresh random bytes, credited to the guest's generator before anything else runs.
    pub entropy: Vec<u8>,
    /// The serials of all disks in the order in which they are attached, where the disks themselves have
    /// none of ours; else empty.
    pub disks: Vec<String>,
    /// What to mount as the root.
    pub root: Root,
    /// Further disks and where they go in the root.
    pub mounts: Vec<Mount>,
    /// Cap on CPU time of all commands together, thousandths of one CPU; `None` for no cap below
    /// the number of vCPUs.
    pub cpu_quota_millis: Option<u32>,
    /// How the network interface is to be set up; `None` when there is none.
    pub network: Option<Network>,
    /// The certificate of the authority that signs for the hosts whose connections are looked into, PEM.
    /// Commands trust it; `None` if no connection is looked into.
    pub certificate: Option<String>,
}

/// Where commands find [`BootConfig::certificate`] alone, PEM.
pub const CA_CERTIFICATE: &str = "/etc/matchlock/ca.pem";

/// Where commands find all certificates to trust, the image's and [`BootConfig::certificate`], PEM.
pub const CA_BUNDLE: &str = "/etc/matchlock/ca-bundle.pem";

/// The guest's side of its one cable. All is static: nothing is asked of the network at boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The most bytes of one IP packet.
    pub mtu: u16,
    /// Its addresses, each with the length of its network's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The next hop for everything that is not on the link, at most one for IPv4 and for IPv6.
    pub gateways: Vec<IpAddr>,
    /// Hardware address of all gateways, which therefore need not be asked for.
    pub gateway_mac: [u8; 6],
}

/// One line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// Address.
    pub address: IpAddr,
    /// Name.
    pub name: String,
}

/// The root file system: an overlay of read-only EROFS disks under one ext4 scratch disk.
/// Disks are named by the serial number that the VMM gives them (`/sys/block/*/serial`) or by
/// [`BootConfig::disks`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Serials of the EROFS disks, lowest layer first; at least one.
    pub layers: Vec<String>,
    /// Serial of the writable ext4 disk.
    pub scratch: String,
    /// Whether the scratch disk outlives this VM: then what is synced must be on it.
    pub durable: bool,
}

/// A disk with an ext4 file system of the user's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Its serial.
    pub serial: String,
    /// Where it goes: an absolute path without `.`, `..` and empty parts, not the root.
    pub target: String,
    /// Whether nobody may write to it.
    pub read_only: bool,
}

/// Where booting has come to; a time-out or failure names the last one reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// The guest binary runs and has read its configuration.
    Configured,
    /// All disks were found and mounted.
    DisksMounted,
    /// The overlay root and the kernel's file systems are in place.
    RootMounted,
    /// Host name, hosts, clock, entropy and control groups are set.
    SystemSet,
}

/// What the guest reports after [`BootConfig`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// A stage is done.
    Reached {
        /// Which.
        stage: Stage,
        /// Microseconds since the guest kernel started.
        uptime_us: u64,
    },
    /// [`crate::Port::Exec`] listens.
    Ready {
        /// Microseconds since the guest kernel started.
        uptime_us: u64,
    },
    /// Booting failed; the guest powers off.
    Failed {
        /// What went wrong, with its causes.
        message: String,
    },
}

/// What the host says on the boot stream after [`Progress::Ready`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// SIGTERM to every command, SIGKILL after the grace period, then sync, unmount and power off.
    PowerOff {
        /// Grace period, milliseconds.
        grace_ms: u64,
    },
}
