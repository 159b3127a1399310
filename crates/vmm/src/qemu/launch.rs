//! From a specification to a running QEMU: its sockets, its jail, its monitor.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream as Socket;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::Port;
use sys::jail::Jail;
use tokio::net::UnixStream;

use super::arguments::{DiskLayout, Layout, NicLayout};
use super::{Accelerator, NAME, qmp};
use crate::channel::Channel;
use crate::error::VmmError;
use crate::launch::{
    Bounds, Child, Descriptors, Started, check, kernel_file, limits, prepare, sealed_memory,
};
use crate::machine::{Control, Link, Machine, MachineSpec};

/// A microvm has 24 virtio-mmio slots, two of them for channel and entropy.
const BOUNDS: Bounds = Bounds { vmm: NAME, vcpus: api::spec::MAX_VCPUS, slots: 22 };

/// Address space of QEMU beyond the guest's memory, bytes: libraries, the buffer of translated
/// code, malloc's arenas, I/O threads.
const OVERHEAD: u64 = 4 << 30;

/// QEMU started, and our ends of what connects us.
pub(super) struct Launch {
    started: Started,
    channel: Socket,
    monitor: Socket,
    link: Option<Socket>,
}

impl Launch {
    /// Prepares and starts it. Blocks for the time of a few system calls.
    pub(super) fn new(program: &Path, mut spec: MachineSpec) -> Result<Self, VmmError> {
        check(&spec, &BOUNDS)?;
        let accelerator = Accelerator::probe();
        let jail = jail(program, &spec, &accelerator);
        let (monitor, qemu_monitor) = Socket::pair().map_err(prepare("the monitor's socket"))?;
        let (channel, qemu_channel) = Socket::pair().map_err(prepare("the channel's socket"))?;
        let (output, mut descriptors) = Descriptors::new()?;
        let kernel = descriptors.add(kernel_file(&spec.kernel)?);
        let initramfs = descriptors.add(sealed_memory("initramfs", &mut &spec.initramfs[..])?);
        let monitor_number = descriptors.add(qemu_monitor);
        let channel_number = descriptors.add(qemu_channel);
        let mut disks = Vec::new();
        let sink = spec.console.take();
        let (serials, files): (Vec<_>, Vec<_>) =
            spec.disks.into_iter().map(|disk| ((disk.serial, disk.access), disk.file)).unzip();
        for ((serial, access), file) in serials.iter().zip(files) {
            disks.push(DiskLayout { serial, access: *access, descriptor: descriptors.add(file) });
        }
        let mut link = None;
        let mut nic = None;
        if let Some(wanted) = spec.nic {
            let (ours, theirs) = Socket::pair().map_err(prepare("the network interface's socket"))?;
            link = Some(ours);
            nic = Some(NicLayout { mac: wanted.mac, mtu: wanted.mtu, descriptor: descriptors.add(theirs) });
        }
        let layout = Layout {
            vcpus: spec.vcpus,
            memory_mb: spec.memory_mb,
            pace: spec.pace,
            accelerator: &accelerator,
            tsc_khz: sys::tsc::khz(),
            kernel,
            initramfs,
            monitor: monitor_number,
            channel: channel_number,
            disks,
            nic,
        };
        let (args, environment) = (layout.arguments(), Vec::new());
        let child = Child { vmm: NAME, program, args, environment, jail, tap: None };
        let started = child.start(descriptors, output, sink)?;
        Ok(Self { started, channel, monitor, link })
    }

    /// Starts the tasks that listen to it.
    pub(super) fn into_machine(self) -> Result<Machine, VmmError> {
        let socket = |socket: Socket| {
            socket.set_nonblocking(true)?;
            UnixStream::from_std(socket)
        };
        let channel = socket(self.channel).map_err(prepare("the channel"))?;
        let monitor = socket(self.monitor).map_err(prepare("the monitor"))?;
        let followed = self.started.follow()?;
        let asked = Arc::clone(&followed.end);
        tokio::spawn(async move {
            let why = qmp::monitor(monitor, &asked.quit).await;
            tracing::debug!(%why, "monitor ended");
        });
        let channel = Channel::new(channel, &[Port::Boot]);
        Ok(followed.into_machine(channel, self.link.map(Link::Stream), Control::Monitor))
    }
}

/// What QEMU may touch: its libraries and firmware, the kernel, and nothing else that has a path.
fn jail(program: &Path, spec: &MachineSpec, accelerator: &Accelerator) -> Jail {
    let mut readable: Vec<PathBuf> = vec![program.to_owned(), spec.kernel.clone()];
    // Where distributions keep shared libraries and firmware; `prefix` is for a QEMU of one's own.
    let prefix = program.parent().and_then(Path::parent).filter(|prefix| *prefix != Path::new("/"));
    for root in [Some(Path::new("/usr")), prefix].into_iter().flatten() {
        readable.extend(["lib", "lib64", "share/qemu", "share/seabios"].map(|part| root.join(part)));
    }
    readable
        .extend(["/lib", "/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/nix/store"].map(PathBuf::from));
    let devices = match accelerator {
        Accelerator::Kvm => vec![PathBuf::from("/dev/kvm")],
        Accelerator::Tcg(_) => Vec::new(),
    };
    let groups = devices.iter().filter_map(|device| device.metadata().ok()).map(|device| device.gid());
    Jail { readable, groups: groups.collect(), devices, ..limits(spec, OVERHEAD) }
}
