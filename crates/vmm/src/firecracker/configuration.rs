//! Firecracker's configuration file for one machine, a pure function of what it is made of.
//!
//! Format: `docs/getting-started.md` and `src/firecracker/swagger/firecracker.yaml` of Firecracker; its keys are
//! the API's paths. What is not mentioned is off, the metadata service (MMDS) above all.

use std::os::fd::RawFd;

use serde::Serialize;
use sys::process::Tap;

use super::sockets;
use crate::machine::{Access, MachineSpec};

/// The guest's address in vsock; 0 to 2 are taken by the standard.
const GUEST_CID: u32 = 3;

/// Random bytes that a guest can have of the host, per [`ENTROPY_PERIOD_MS`]. More would be the host's time
/// for whoever reads `/dev/hwrng` for ever; the guest's own generator is seeded by us.
const ENTROPY_BYTES: u64 = 64 * 1024;

/// Milliseconds.
const ENTROPY_PERIOD_MS: u64 = 100;

/// Only what the machine itself needs: all else goes over the channel.
/// `reboot=k`: Firecracker ends when its guest resets itself by the keyboard controller, of which nothing
/// else is there to be found. `panic=-1` does that at once. The dummy driver is there for containers, not
/// to make an interface that nobody asked for. Firecracker announces each device twice, by ACPI and on this line,
/// and the kernel's complaints about that, byte by byte over the serial line, took a tenth of the boot: the guest
/// says errors again once it is up.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 loglevel=3 reboot=k panic=-1 pci=off i8042.noaux i8042.nomux \
     i8042.dumbkbd i8042.nopnp dummy.numdummies=0";

/// The numbers of Firecracker's descriptors, by which it opens its files.
pub(super) struct Numbers {
    pub(super) kernel: RawFd,
    pub(super) initramfs: RawFd,
    /// The folder of its sockets.
    pub(super) folder: RawFd,
    pub(super) cpu_template: Option<RawFd>,
    /// One for each disk.
    pub(super) disks: Vec<RawFd>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Configuration {
    boot_source: BootSource,
    drives: Vec<Drive>,
    machine_config: MachineConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_config: Option<String>,
    network_interfaces: Vec<Interface>,
    vsock: Vsock,
    entropy: Entropy,
}

#[derive(Serialize)]
struct BootSource {
    kernel_image_path: String,
    initrd_path: String,
    boot_args: &'static str,
}

#[derive(Serialize)]
struct Drive {
    drive_id: String,
    path_on_host: String,
    is_root_device: bool,
    is_read_only: bool,
    cache_type: &'static str,
}

#[derive(Serialize)]
struct MachineConfig {
    vcpu_count: u32,
    mem_size_mib: u32,
    /// Before 1.9 there was no such choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    huge_pages: Option<&'static str>,
}

#[derive(Serialize)]
struct Interface {
    iface_id: &'static str,
    host_dev_name: &'static str,
    guest_mac: String,
}

#[derive(Serialize)]
struct Vsock {
    guest_cid: u32,
    uds_path: String,
}

#[derive(Serialize)]
struct Entropy {
    rate_limiter: RateLimiter,
}

#[derive(Serialize)]
struct RateLimiter {
    bandwidth: TokenBucket,
}

#[derive(Serialize)]
struct TokenBucket {
    size: u64,
    refill_time: u64,
}

/// The path under which a process has its descriptor.
pub(super) fn path_of(number: RawFd) -> String {
    format!("/proc/self/fd/{number}")
}

/// The configuration of `spec`, JSON.
pub(super) fn of(spec: &MachineSpec, huge_pages: bool, numbers: &Numbers) -> Vec<u8> {
    let disks = spec.disks.iter().zip(&numbers.disks).enumerate();
    let bandwidth = TokenBucket { size: ENTROPY_BYTES, refill_time: ENTROPY_PERIOD_MS };
    let configuration = Configuration {
        boot_source: BootSource {
            kernel_image_path: path_of(numbers.kernel),
            initrd_path: path_of(numbers.initramfs),
            boot_args: KERNEL_COMMAND_LINE,
        },
        drives: disks.map(|(index, (disk, number))| drive(index, disk.access, *number)).collect(),
        machine_config: MachineConfig {
            vcpu_count: spec.vcpus,
            mem_size_mib: spec.memory_mb,
            huge_pages: huge_pages.then_some("2M"),
        },
        cpu_config: numbers.cpu_template.map(path_of),
        network_interfaces: spec.nic.iter().map(|nic| interface(nic.mac)).collect(),
        vsock: Vsock { guest_cid: GUEST_CID, uds_path: sockets::path(numbers.folder, sockets::VSOCK) },
        entropy: Entropy { rate_limiter: RateLimiter { bandwidth } },
    };
    serde_json::to_vec(&configuration).expect("plain data can be encoded")
}

fn drive(index: usize, access: Access, number: RawFd) -> Drive {
    Drive {
        drive_id: format!("disk{index}"),
        path_on_host: path_of(number),
        // The root is the initramfs.
        is_root_device: false,
        is_read_only: !access.is_writable(),
        cache_type: if access == Access::Durable { "Writeback" } else { "Unsafe" },
    }
}

fn interface([a, b, c, d, e, f]: [u8; 6]) -> Interface {
    Interface {
        iface_id: "net0",
        host_dev_name: Tap::NAME,
        guest_mac: format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_durable_disk_takes_flushes_and_only_a_read_only_one_no_writes() {
        for (access, read_only, cache) in [
            (Access::ReadOnly, true, "Unsafe"),
            (Access::Scratch, false, "Unsafe"),
            (Access::Durable, false, "Writeback"),
        ] {
            let drive = drive(3, access, 7);
            assert_eq!((drive.is_read_only, drive.cache_type), (read_only, cache), "{access:?}");
            assert_eq!((drive.drive_id.as_str(), drive.path_on_host.as_str()), ("disk3", "/proc/self/fd/7"));
        }
    }
}
