//! QEMU's command line for one machine, a pure function of what it is made of.
//!
//! Nothing but numbers and checked serials is put into it, so it needs no quoting; everything that
//! has a path on the host is handed over as a descriptor.

use std::os::fd::RawFd;

use super::Accelerator;
use crate::machine::Access;
use crate::machine::Pace;

/// What QEMU needs to know of a machine. Descriptors are QEMU's own numbers.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) vcpus: u32,
    pub(super) memory_mb: u32,
    pub(super) pace: Pace,
    pub(super) accelerator: &'a Accelerator,
    /// The rate of the counter that an emulated guest reads, kHz.
    pub(super) tsc_khz: u64,
    pub(super) kernel: RawFd,
    pub(super) initramfs: RawFd,
    pub(super) monitor: RawFd,
    pub(super) channel: RawFd,
    pub(super) disks: Vec<DiskLayout<'a>>,
    pub(super) nic: Option<NicLayout>,
}

#[derive(Debug)]
pub(super) struct DiskLayout<'a> {
    pub(super) serial: &'a str,
    pub(super) access: Access,
    pub(super) descriptor: RawFd,
}

#[derive(Debug)]
pub(super) struct NicLayout {
    pub(super) mac: [u8; 6],
    pub(super) mtu: u16,
    pub(super) descriptor: RawFd,
}

impl Layout<'_> {
    /// All arguments, without the program's name.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut line = Line::default();
        line.flag("-nodefaults").flag("-no-user-config").flag("-no-reboot");
        line.option("-display", "none");
        line.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        self.machine(&mut line);
        self.devices(&mut line);
        for (index, disk) in self.disks.iter().enumerate() {
            disk.arguments(index, &mut line);
        }
        if let Some(nic) = &self.nic {
            nic.arguments(&mut line);
        }
        line.0
    }

    fn machine(&self, line: &mut Line) {
        // No option ROMs: the firmware takes the kernel from fw_cfg itself. No ACPI: its tables
        // would have to be interpreted, the kernel's command line names the devices. The old
        // interrupt controller, timer and clock stay, because the kernel waits long for those that
        // do not answer (a second for the clock).
        line.option(
            "-M",
            "microvm,x-option-roms=off,acpi=off,rtc=on,pit=on,pic=on,isa-serial=on,\
             dump-guest-core=off,mem-merge=off",
        );
        match self.accelerator {
            Accelerator::Kvm => line.option("-accel", "kvm").option("-cpu", "host"),
            // Without the flags that promise fast byte-wise copying: to repeat one instruction for
            // every byte is what an emulated CPU is slow at, and the guest's kernel copies words
            // if it is not told to (the channel gains a factor of 2.5).
            // The buffer of translated code is QEMU's largest after the guest's memory; 1 GiB, its
            // default, is more than a sandbox should be able to take on top of what it was given.
            Accelerator::Tcg(_) => {
                line.option("-accel", "tcg,tb-size=256").option("-cpu", "max,erms=off,fsrm=off")
            }
        };
        line.option("-m", format!("{}M", self.memory_mb));
        line.option("-smp", self.vcpus.to_string());
        line.option("-kernel", format!("/proc/self/fd/{}", self.kernel));
        line.option("-initrd", format!("/proc/self/fd/{}", self.initramfs));
        line.option("-append", self.kernel_command_line());
    }

    /// Only what the machine itself needs: all configuration goes over the channel.
    fn kernel_command_line(&self) -> String {
        // `reboot=t`: a triple fault is the only way to end a microvm without ACPI; with
        // `-no-reboot` QEMU ends on it. `panic=-1` does that at once.
        // The dummy driver is there for containers, not to make an interface that nobody asked for.
        let mut words = vec!["console=ttyS0 quiet reboot=t panic=-1 acpi=off dummy.numdummies=0".to_owned()];
        if let Accelerator::Tcg(_) = self.accelerator {
            // The rate of the counter is given, see sys::tsc. Mitigations are against what a CPU
            // speculates, and an emulated one does not. Replacing `lock` prefixes by nothing, at
            // ten thousand places, is not worth it if the CPU is emulated (0.09 s), and the timer
            // needs no check (0.08 s).
            words.push(format!("tsc_early_khz={} tsc=reliable", self.tsc_khz));
            words.push("mitigations=off noreplace-smp no_timer_check".to_owned());
            if self.vcpus == 1 && self.pace == Pace::Sprint {
                // The local APIC's timer takes 0.3 s to calibrate, the PIT's rate is known. But that
                // cannot wait for longer than 27 ms, so an idle guest costs 1 % of a CPU with it,
                // and 0.2 % without; and it cannot serve several CPUs well.
                words.push("nolapic_timer".to_owned());
            }
        }
        words.join(" ")
    }

    fn devices(&self, line: &mut Line) {
        line.option("-chardev", "stdio,id=console,signal=off").option("-serial", "chardev:console");
        line.option("-chardev", format!("socket,id=monitor,fd={}", self.monitor));
        line.option("-mon", "chardev=monitor,mode=control");
        line.option("-chardev", format!("socket,id=channel,fd={}", self.channel));
        // Two ports: port 0 is reserved for a console, and each costs queues to set up.
        line.option("-device", "virtio-serial-device,max_ports=2");
        line.option("-device", format!("virtserialport,chardev=channel,name={}", proto::CHANNEL_NAME));
        line.option("-object", "rng-builtin,id=entropy").option("-device", "virtio-rng-device,rng=entropy");
    }
}

impl DiskLayout<'_> {
    fn arguments(&self, index: usize, line: &mut Line) {
        let set = index + 1;
        line.option("-add-fd", format!("fd={},set={set}", self.descriptor));
        let (read_only, no_flush) = match self.access {
            Access::ReadOnly => ("on", "off"),
            Access::Scratch => ("off", "on"),
            Access::Durable => ("off", "off"),
        };
        // The host's page cache is used, so layers are shared by all machines and read ahead.
        // Discarded blocks become holes again. Locks are the business of those who open the files.
        line.option(
            "-blockdev",
            format!(
                "driver=file,node-name=disk{index},filename=/dev/fdset/{set},read-only={read_only},\
                 cache.direct=off,cache.no-flush={no_flush},aio=threads,locking=off,discard=unmap"
            ),
        );
        // A guest whose disk finds no room on the host's is told; QEMU would stop it, and nobody let it go on.
        let device = format!("virtio-blk-device,drive=disk{index},serial={},werror=report", self.serial);
        line.option("-device", device);
    }
}

impl NicLayout {
    fn arguments(&self, line: &mut Line) {
        // Not a server: the socket is connected already, and QEMU may neither listen nor connect.
        line.option(
            "-netdev",
            format!("stream,id=net0,server=off,addr.type=fd,addr.str={}", self.descriptor),
        );
        let [a, b, c, d, e, f] = self.mac;
        // Frames go into as many of the guest's buffers as they need, because otherwise each of those
        // would have to hold the largest: 17 MB in all.
        let device = format!(
            "virtio-net-device,netdev=net0,mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x},\
             host_mtu={},mrg_rxbuf=on",
            self.mtu
        );
        let off = UNUSED.iter().flat_map(|feature| [",", feature, "=off"]);
        line.option("-device", off.fold(device, |text, part| text + part));
    }
}

/// Features of a network interface that the guest shall not even see: checksums and segmentation left to
/// somebody behind the cable, where large frames do more; and all that is controlled at run time.
const UNUSED: &[&str] = &[
    "csum",
    "gso",
    "guest_csum",
    "guest_tso4",
    "guest_tso6",
    "guest_ecn",
    "guest_ufo",
    "host_tso4",
    "host_tso6",
    "host_ecn",
    "host_ufo",
    "ctrl_vq",
    "ctrl_rx",
    "ctrl_rx_extra",
    "ctrl_vlan",
    "ctrl_mac_addr",
    "ctrl_guest_offloads",
    "guest_announce",
];

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.to_owned());
        self
    }

    fn option(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.flag(name);
        self.0.push(value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_durable_disk_takes_flushes_and_only_a_read_only_one_no_writes() {
        for (access, expected) in [
            (Access::ReadOnly, ["read-only=on", "cache.no-flush=off"]),
            (Access::Scratch, ["read-only=off", "cache.no-flush=on"]),
            (Access::Durable, ["read-only=off", "cache.no-flush=off"]),
        ] {
            let mut line = Line::default();
            DiskLayout { serial: "disk0", access, descriptor: 7 }.arguments(0, &mut line);
            let text = line.0.join(" ");
            assert!(expected.iter().all(|option| text.contains(option)), "{access:?}: {text}");
        }
    }
}
