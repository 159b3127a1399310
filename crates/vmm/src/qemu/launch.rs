//! From a specification to a running QEMU: its files, its sockets, its jail, and the tasks that
//! listen to it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as Socket;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::Port;
use rustix::fs::{MemfdFlags, SealFlags};
use sys::jail::Jail;
use sys::process::{Command, Process, Status};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};

use super::arguments::{DiskLayout, Layout, NicLayout};
use super::{Accelerator, QemuError, qmp};
use crate::channel::Channel;
use crate::console::{self, Sink, Tail};
use crate::kernel;
use crate::machine::{End, Exit, Machine, MachineSpec};

/// Disks and network interfaces that a microvm has room for: 24 virtio-mmio slots, two of them for
/// channel and entropy.
const SLOTS: usize = 22;

/// The longest serial that virtio-blk carries, bytes.
const MAX_SERIAL: usize = 20;

/// Address space of QEMU beyond the guest's memory, bytes: libraries, the buffer of translated
/// code, malloc's arenas, I/O threads.
const OVERHEAD: u64 = 4 << 30;

/// Address space for each vCPU's thread, bytes: its stack and its malloc arena, mostly unused.
const VCPU_OVERHEAD: u64 = 144 << 20;

/// Descriptors of QEMU: with KVM each queue of each device has two.
const OPEN_FILES: u64 = 512;

/// QEMU started, and our ends of what connects us.
pub(super) struct Launch {
    process: Process,
    status: oneshot::Receiver<Status>,
    channel: Socket,
    monitor: Socket,
    console: OwnedFd,
    errors: OwnedFd,
    sink: Option<Sink>,
}

impl Launch {
    /// Prepares and starts it. Blocks for the time of a few system calls.
    pub(super) fn new(program: &Path, mut spec: MachineSpec) -> Result<Self, QemuError> {
        check(&spec)?;
        let accelerator = Accelerator::probe();
        let jail = jail(program, &spec, &accelerator);
        let (monitor, qemu_monitor) = Socket::pair().map_err(prepare("the monitor's socket"))?;
        let (channel, qemu_channel) = Socket::pair().map_err(prepare("the channel's socket"))?;
        let (console, qemu_console) = io::pipe().map_err(prepare("the console's pipe"))?;
        let (errors, qemu_errors) = io::pipe().map_err(prepare("QEMU's standard error"))?;
        let nothing = File::open("/dev/null").map_err(prepare("/dev/null"))?;
        let mut descriptors: Vec<OwnedFd> = vec![nothing.into(), qemu_console.into(), qemu_errors.into()];
        let mut hand_over = |descriptor: OwnedFd| -> RawFd {
            descriptors.push(descriptor);
            RawFd::try_from(descriptors.len() - 1).expect("a handful")
        };
        let kernel = hand_over(kernel_file(&spec.kernel)?);
        let initramfs = hand_over(sealed_memory("initramfs", &mut &spec.initramfs[..])?);
        let monitor_number = hand_over(qemu_monitor.into());
        let channel_number = hand_over(qemu_channel.into());
        let mut disks = Vec::new();
        let sink = spec.console.take();
        let (serials, files): (Vec<_>, Vec<_>) =
            spec.disks.into_iter().map(|disk| ((disk.serial, disk.access), disk.file)).unzip();
        for ((serial, access), file) in serials.iter().zip(files) {
            disks.push(DiskLayout { serial, access: *access, descriptor: hand_over(file.into()) });
        }
        let nic = spec.nic.map(|nic| NicLayout {
            mac: nic.mac,
            mtu: nic.mtu,
            descriptor: hand_over(nic.socket.into()),
        });
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
        let args = layout.arguments().into_iter().map(Into::into).collect();
        let (ended, status) = oneshot::channel();
        let command = Command { program: program.to_owned(), args, descriptors, jail };
        // If nobody listens any more, nobody needs to know.
        let process = command.spawn(move |status| _ = ended.send(status))?;
        Ok(Self { process, status, channel, monitor, console: console.into(), errors: errors.into(), sink })
    }

    /// Starts the tasks that listen to it.
    pub(super) fn into_machine(self) -> Result<Machine, QemuError> {
        let socket = |socket: Socket| {
            socket.set_nonblocking(true)?;
            UnixStream::from_std(socket)
        };
        let channel = socket(self.channel).map_err(prepare("the channel"))?;
        let monitor = socket(self.monitor).map_err(prepare("the monitor"))?;
        let console_pipe = pipe::Receiver::from_owned_fd(self.console).map_err(prepare("the console"))?;
        let errors = pipe::Receiver::from_owned_fd(self.errors).map_err(prepare("QEMU's standard error"))?;
        let (console, complaints) = (Tail::default(), Tail::default());
        let console_end = tokio::spawn(console::follow(console_pipe, console.clone(), self.sink));
        let errors_end = tokio::spawn(console::follow(errors, complaints.clone(), None));
        let end = Arc::new(End::default());
        let asked = Arc::clone(&end);
        tokio::spawn(async move {
            let why = qmp::monitor(monitor, &asked.quit).await;
            tracing::debug!(%why, "monitor ended");
        });
        let (exited, exit) = watch::channel(None);
        let (status, tail, asked) = (self.status, console.clone(), Arc::clone(&end));
        tokio::spawn(async move {
            let Ok(status) = status.await else { return };
            // QEMU was the only writer, so both pipes are at their end; what is in them counts.
            let _ = tokio::join!(console_end, errors_end);
            let cause = asked.cause(status);
            exited.send_replace(Some(Exit {
                cause,
                console_tail: tail.text(),
                vmm_stderr: complaints.text(),
            }));
        });
        let channel = Channel::new(channel, &[Port::Boot]);
        Ok(Machine { process: self.process, channel, console, end, exit })
    }
}

fn prepare(what: &'static str) -> impl FnOnce(io::Error) -> QemuError {
    move |source| QemuError::Prepare { what, source }
}

fn check(spec: &MachineSpec) -> Result<(), QemuError> {
    if !(1..=api::spec::MAX_VCPUS).contains(&spec.vcpus) {
        return Err(QemuError::Vcpus(spec.vcpus));
    }
    let (asked, least) = (spec.memory_mb, api::spec::MIN_MEMORY_MB);
    if asked < least {
        return Err(QemuError::TooLittleMemory { asked, least });
    }
    let most = SLOTS - usize::from(spec.nic.is_some());
    if spec.disks.len() > most {
        return Err(QemuError::TooManyDisks { asked: spec.disks.len(), most });
    }
    let serials: Vec<&str> = spec.disks.iter().map(|disk| disk.serial.as_str()).collect();
    for (index, serial) in serials.iter().enumerate() {
        let letters = serial.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !letters || !(1..=MAX_SERIAL).contains(&serial.len()) || serials[..index].contains(serial) {
            return Err(QemuError::Serial((*serial).to_owned()));
        }
    }
    Ok(())
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
    let writable = spec.disks.iter().filter(|disk| disk.access.is_writable());
    let sizes = writable.filter_map(|disk| disk.file.metadata().ok()).map(|file| file.len());
    Jail {
        readable,
        groups: groups.collect(),
        devices,
        address_space: (u64::from(spec.memory_mb) << 20) + OVERHEAD + u64::from(spec.vcpus) * VCPU_OVERHEAD,
        file_size: sizes.max().unwrap_or(0),
        open_files: OPEN_FILES,
    }
}

/// The kernel, checked. QEMU opens it again through `/proc/self/fd`, perhaps as another user: then
/// it gets a copy if the file itself is not for everybody.
fn kernel_file(path: &Path) -> Result<OwnedFd, QemuError> {
    let invalid = |source| QemuError::Kernel { path: path.to_owned(), source };
    let mut file = kernel::check(path).map_err(invalid)?;
    let mode = file.metadata().map_err(|error| invalid(error.into()))?.permissions().mode();
    if mode & 0o004 != 0 || !rustix::process::geteuid().is_root() {
        return Ok(file.into());
    }
    sealed_memory("kernel", &mut file)
}

/// A file in memory that nobody can change any more.
fn sealed_memory(name: &'static str, content: &mut dyn io::Read) -> Result<OwnedFd, QemuError> {
    let make = |content: &mut dyn io::Read| -> io::Result<OwnedFd> {
        let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = File::from(memory);
        io::copy(content, &mut file)?;
        file.flush()?;
        rustix::fs::fcntl_add_seals(
            &file,
            SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
        )?;
        Ok(file.into())
    };
    make(content).map_err(prepare(name))
}
