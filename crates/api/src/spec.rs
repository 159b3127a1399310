//! What a sandbox is to be: everything `run` can ask for, with the defaults in one place.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::disk::DiskSpec;
use crate::forward::Forward;
use crate::name::SandboxName;
use crate::network::NetworkSpec;

/// Memory of a VM unless asked otherwise, MiB.
pub const DEFAULT_MEMORY_MB: u32 = 512;

/// The least memory that the guest kernel, the agent and one small program need, MiB.
pub const MIN_MEMORY_MB: u32 = 64;

/// Size of the scratch disk unless asked otherwise, MiB.
pub const DEFAULT_DISK_MB: u64 = 5120;

/// The smallest scratch disk, MiB: an ext4 file system with its journal and room for a program.
pub const MIN_DISK_MB: u64 = 16;

/// Nameservers that a guest sees in `/etc/resolv.conf` unless asked otherwise. It does not matter
/// which: whatever it asks, the host answers.
pub const DEFAULT_DNS_SERVERS: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(std::net::Ipv4Addr::new(8, 8, 4, 4))];

/// CPUs of a VM, in thousandths: 1500 is two vCPUs that together get one and a half CPUs' time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpus(u32);

/// The most vCPUs of one VM.
pub const MAX_VCPUS: u32 = 64;

/// Not a number of CPUs that a VM can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a number of CPUs: more than 0, at most {MAX_VCPUS}, fractions allowed (1.5)")]
pub struct InvalidCpus(String);

impl Cpus {
    /// One CPU.
    pub const ONE: Self = Self(1000);

    /// vCPUs the VM needs: the fraction rounded up.
    #[must_use]
    pub fn vcpus(self) -> u32 {
        self.0.div_ceil(1000)
    }

    /// The same as a number.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    /// The cap on CPU time in thousandths of a CPU, where it is below what the vCPUs would give.
    #[must_use]
    pub fn quota_millis(self) -> Option<u32> {
        (!self.0.is_multiple_of(1000)).then_some(self.0)
    }
}

impl std::str::FromStr for Cpus {
    type Err = InvalidCpus;

    fn from_str(text: &str) -> Result<Self, InvalidCpus> {
        let number: f64 = text.parse().map_err(|_| InvalidCpus(text.to_owned()))?;
        let millis = (number * 1000.0).ceil();
        if !(1.0..=f64::from(MAX_VCPUS * 1000)).contains(&millis) {
            return Err(InvalidCpus(text.to_owned()));
        }
        // In range by the check above.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range was checked")]
        Ok(Self(millis as u32))
    }
}

/// Which VMM to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// The best one that works here.
    #[default]
    Auto,
    /// QEMU, with KVM if that is usable and emulation if not.
    Qemu,
    /// Firecracker, which needs KVM.
    Firecracker,
}

/// Limits of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPUs.
    pub cpus: Cpus,
    /// Memory, MiB.
    pub memory_mb: u32,
    /// Size of the scratch disk, MiB; it takes space on the host only as it is written.
    pub disk_mb: u64,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpus: Cpus::ONE, memory_mb: DEFAULT_MEMORY_MB, disk_mb: DEFAULT_DISK_MB }
    }
}

/// What to run, in terms of the image's own configuration; Docker's semantics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// Replaces the image's entrypoint, and drops its `CMD`; an empty word means no entrypoint.
    pub entrypoint: Option<String>,
    /// The words after the entrypoint; if empty, the image's `CMD`.
    pub args: Vec<String>,
    /// Environment, added to and overriding the image's.
    pub env: Vec<(String, String)>,
    /// Replaces the image's working directory.
    pub working_dir: Option<String>,
    /// Replaces the image's user.
    pub user: Option<String>,
    /// Keep all capabilities and system calls.
    pub privileged: bool,
}

/// A sandbox to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Image reference or tag.
    pub image: String,
    /// Another way to name it than its ID.
    pub name: Option<SandboxName>,
    /// What runs in it from its start, and what every later command inherits environment, working
    /// directory, user and privileges from.
    pub command: CommandSpec,
    /// It stays when its command ends, and its disk stays when it is stopped.
    pub keep: bool,
    /// Limits.
    pub resources: Resources,
    /// Disks besides its own.
    #[serde(default)]
    pub disks: Vec<DiskSpec>,
    /// Guest's host name; the sandbox's ID if `None`.
    pub hostname: Option<String>,
    /// Lines of the guest's `/etc/hosts`: address and name.
    pub add_hosts: Vec<(IpAddr, String)>,
    /// Nameservers that the guest's questions are passed on to, and that it sees in its
    /// `/etc/resolv.conf`. If empty, the host's own resolver answers, and the guest sees
    /// [`DEFAULT_DNS_SERVERS`].
    pub dns_servers: Vec<IpAddr>,
    /// What it may reach.
    #[serde(default)]
    pub network: NetworkSpec,
    /// A kernel to boot instead of the default one.
    pub kernel: Option<PathBuf>,
    /// Which VMM.
    pub backend: Backend,
    /// How long its command may run before it is ended.
    pub timeout: Option<Duration>,
    /// How long the guest may take to end its commands and sync its disk when the sandbox ends by
    /// itself; `None` ends it at once.
    pub graceful_shutdown: Option<Duration>,
    /// Ports of the guest that are forwarded from the host while the sandbox runs.
    pub publish: Vec<Forward>,
    /// Addresses of the host that those listen on.
    pub publish_addresses: Vec<IpAddr>,
}

impl SandboxSpec {
    /// Whether it has a disk that outlives its VM, and so should be whole when that ends.
    #[must_use]
    pub fn has_something_to_lose(&self) -> bool {
        self.keep || self.disks.iter().any(|disk| !disk.read_only)
    }

    /// The nameservers that the guest sees.
    #[must_use]
    pub fn shown_dns_servers(&self) -> &[IpAddr] {
        if self.dns_servers.is_empty() { &DEFAULT_DNS_SERVERS } else { &self.dns_servers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_of_cpus_round_up_and_are_capped() {
        let parse = |text: &str| text.parse::<Cpus>();
        assert_eq!(parse("1"), Ok(Cpus::ONE));
        assert_eq!((parse("1.5").unwrap().vcpus(), parse("1.5").unwrap().quota_millis()), (2, Some(1500)));
        assert_eq!((parse("2").unwrap().vcpus(), parse("2").unwrap().quota_millis()), (2, None));
        assert_eq!(parse("0.25").unwrap().vcpus(), 1);
        for wrong in ["0", "-1", "nan", "inf", "65", "many", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
