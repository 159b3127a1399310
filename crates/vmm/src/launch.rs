//! What starting a VMM takes, whichever it is: its files, its jail, and the tasks that listen to it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::fs::{MemfdFlags, SealFlags};
use sys::jail::Jail;
use sys::process::{Command, Process, Status, Tap};
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use crate::channel::Channel;
use crate::console::{self, Sink, Tail};
use crate::error::VmmError;
use crate::kernel;
use crate::machine::{Control, End, Exit, Link, Machine, MachineSpec};

/// The longest serial that virtio-blk carries, bytes.
const MAX_SERIAL: usize = 20;

/// Launches on a thread of its own. Whoever drops this waits for the thread, and ends what it has launched: nothing
/// is begun behind the back of somebody who tidies up meanwhile.
pub(crate) async fn on_a_thread<T: Send + 'static>(
    launch: impl FnOnce() -> Result<T, VmmError> + Send + 'static,
) -> Result<T, VmmError> {
    struct Joined(Option<JoinHandle<()>>);

    impl Drop for Joined {
        fn drop(&mut self) {
            if let Some(thread) = self.0.take() {
                // What it panicked of, it has said.
                let _ = thread.join();
            }
        }
    }

    let (sender, launched) = oneshot::channel();
    let runtime = Handle::current();
    let thread = thread::Builder::new().name("launch".to_owned()).spawn(move || {
        let _context = runtime.enter();
        drop(sender.send(launch()));
    });
    let _joined = Joined(Some(thread.map_err(prepare("a thread"))?));
    launched.await.expect("launching does not panic")
}

/// The descriptors of a VMM, in the order of their numbers; the first three are those of every program.
pub(crate) struct Descriptors(Vec<OwnedFd>);

/// Our ends of what a VMM and its guest write.
pub(crate) struct Output {
    console: OwnedFd,
    errors: OwnedFd,
}

impl Descriptors {
    /// Nothing to read, the guest's console as standard output, and standard error.
    pub(crate) fn new() -> Result<(Output, Self), VmmError> {
        let nothing = File::open("/dev/null").map_err(prepare("/dev/null"))?;
        let (console, its_console) = io::pipe().map_err(prepare("the console's pipe"))?;
        let (errors, its_errors) = io::pipe().map_err(prepare("the VMM's standard error"))?;
        let output = Output { console: console.into(), errors: errors.into() };
        Ok((output, Self(vec![nothing.into(), its_console.into(), its_errors.into()])))
    }

    /// Hands one more over, and gives the number that it has there.
    pub(crate) fn add(&mut self, descriptor: impl Into<OwnedFd>) -> RawFd {
        self.0.push(descriptor.into());
        RawFd::try_from(self.0.len() - 1).expect("a handful")
    }
}

/// A VMM that is to be started.
pub(crate) struct Child<'a> {
    pub(crate) vmm: &'static str,
    pub(crate) program: &'a Path,
    pub(crate) args: Vec<String>,
    /// Each variable as `NAME=VALUE`.
    pub(crate) environment: Vec<String>,
    pub(crate) jail: Jail,
    pub(crate) tap: Option<Tap>,
}

impl Child<'_> {
    /// Starts it; the guest's console goes to `sink`, too.
    pub(crate) fn start(
        self,
        descriptors: Descriptors,
        output: Output,
        sink: Option<Sink>,
    ) -> Result<Started, VmmError> {
        let Self { vmm, program, args, environment, jail, tap } = self;
        let (ended, status) = oneshot::channel();
        let command = Command {
            program: program.to_owned(),
            args: args.into_iter().map(Into::into).collect(),
            environment: environment.into_iter().map(Into::into).collect(),
            descriptors: descriptors.0,
            jail,
            tap,
        };
        // If nobody listens any more, nobody needs to know.
        let process = command.spawn(move |status| _ = ended.send(status));
        let process = process.map_err(|source| VmmError::Spawn { vmm, source })?;
        Ok(Started { process, status, output, sink })
    }
}

/// A VMM that runs, and nobody listens to it yet.
pub(crate) struct Started {
    pub(crate) process: Process,
    status: oneshot::Receiver<Status>,
    output: Output,
    sink: Option<Sink>,
}

/// A VMM that runs and is listened to.
pub(crate) struct Followed {
    pub(crate) process: Process,
    console: Tail,
    pub(crate) end: Arc<End>,
    pub(crate) exit: watch::Receiver<Option<Exit>>,
}

impl Started {
    /// Starts the tasks that listen to it.
    pub(crate) fn follow(self) -> Result<Followed, VmmError> {
        let output = pipe::Receiver::from_owned_fd(self.output.console).map_err(prepare("the console"))?;
        let errors = pipe::Receiver::from_owned_fd(self.output.errors);
        let errors = errors.map_err(prepare("the VMM's standard error"))?;
        let (console, complaints) = (Tail::default(), Tail::default());
        let console_end = tokio::spawn(console::follow(output, console.clone(), self.sink));
        let errors_end = tokio::spawn(console::follow(errors, complaints.clone(), None));
        let end = Arc::new(End::default());
        let (exited, exit) = watch::channel(None);
        let (status, tail, asked) = (self.status, console.clone(), Arc::clone(&end));
        tokio::spawn(async move {
            let Ok(status) = status.await else { return };
            // The VMM was the only writer, so both pipes are at their end; what is in them counts.
            let _ = tokio::join!(console_end, errors_end);
            let cause = asked.cause(status);
            exited.send_replace(Some(Exit {
                cause,
                console_tail: tail.text(),
                vmm_stderr: complaints.text(),
            }));
        });
        Ok(Followed { process: self.process, console, end, exit })
    }
}

impl Followed {
    pub(crate) fn into_machine(self, channel: Channel, link: Option<Link>, control: Control) -> Machine {
        let Self { process, console, end, exit } = self;
        Machine { process, channel, console, end, exit, link, control }
    }
}

pub(crate) fn prepare(what: &'static str) -> impl FnOnce(io::Error) -> VmmError {
    move |source| VmmError::Prepare { what, source }
}

/// The most that a VMM's machine can have.
pub(crate) struct Bounds {
    pub(crate) vmm: &'static str,
    pub(crate) vcpus: u32,
    /// For disks and network interfaces together.
    pub(crate) slots: usize,
}

/// Refuses what the VMM cannot be started with.
pub(crate) fn check(spec: &MachineSpec, bounds: &Bounds) -> Result<(), VmmError> {
    let Bounds { vmm, vcpus, slots } = *bounds;
    if !(1..=vcpus).contains(&spec.vcpus) {
        return Err(VmmError::Vcpus { vmm, asked: spec.vcpus, most: vcpus });
    }
    let (asked, least) = (spec.memory_mb, api::spec::MIN_MEMORY_MB);
    if asked < least {
        return Err(VmmError::TooLittleMemory { asked, least });
    }
    let most = slots - usize::from(spec.nic.is_some());
    if spec.disks.len() > most {
        return Err(VmmError::TooManyDisks { vmm, asked: spec.disks.len(), most });
    }
    let serials: Vec<&str> = spec.disks.iter().map(|disk| disk.serial.as_str()).collect();
    for (index, serial) in serials.iter().enumerate() {
        let letters = serial.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !letters || !(1..=MAX_SERIAL).contains(&serial.len()) || serials[..index].contains(serial) {
            return Err(VmmError::Serial((*serial).to_owned()));
        }
    }
    Ok(())
}

/// Address space for each vCPU's thread, bytes: its stack and its malloc arena, mostly unused.
const VCPU_OVERHEAD: u64 = 144 << 20;

/// Descriptors of a VMM: a few for each device and vCPU; with KVM each queue of QEMU's devices has two.
const OPEN_FILES: u64 = 512;

/// A jail with nothing in it but limits, for a VMM with so many bytes of address space beyond the guest's
/// memory and vCPUs. The longest file is its largest disk.
pub(crate) fn limits(spec: &MachineSpec, overhead: u64) -> Jail {
    let writable = spec.disks.iter().filter(|disk| disk.access.is_writable());
    let sizes = writable.filter_map(|disk| disk.file.metadata().ok()).map(|file| file.len());
    Jail {
        address_space: memory(spec) + overhead + u64::from(spec.vcpus) * VCPU_OVERHEAD,
        file_size: sizes.max().unwrap_or(0),
        open_files: OPEN_FILES,
        ..Jail::default()
    }
}

/// The guest's memory, bytes.
pub(crate) fn memory(spec: &MachineSpec) -> u64 {
    u64::from(spec.memory_mb) << 20
}

/// The kernel, checked. A VMM opens it again through `/proc/self/fd`, perhaps as another user: then
/// it gets a copy if the file itself is not for everybody.
pub(crate) fn kernel_file(path: &Path) -> Result<OwnedFd, VmmError> {
    let invalid = |source| VmmError::Kernel { path: path.to_owned(), source };
    let mut file = kernel::check(path).map_err(invalid)?;
    let mode = file.metadata().map_err(|error| invalid(error.into()))?.permissions().mode();
    if mode & 0o004 != 0 || !rustix::process::geteuid().is_root() {
        return Ok(file.into());
    }
    sealed_memory("kernel", &mut file)
}

/// A file in memory that nobody can change any more.
pub(crate) fn sealed_memory(name: &'static str, content: &mut dyn io::Read) -> Result<OwnedFd, VmmError> {
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

#[cfg(test)]
mod tests {
    use api::Explain;

    use super::*;
    use crate::machine::{Access, Disk, Nic, Pace};

    #[test]
    fn what_a_vmm_has_no_room_for_is_refused_and_qemu_has_more() {
        let refused = |vmm, vcpus, disks, nic: bool| {
            let disk = |number: usize| Disk {
                serial: number.to_string(),
                file: File::open("/dev/null").unwrap(),
                access: Access::ReadOnly,
            };
            let spec = MachineSpec {
                vcpus,
                memory_mb: 128,
                pace: Pace::Sprint,
                kernel: "/nonexistent".into(),
                initramfs: Vec::new(),
                disks: (0..disks).map(disk).collect(),
                nic: nic.then_some(Nic { mac: [2, 0, 0, 0, 0, 1], mtu: 1500 }),
                directory: "/nonexistent".into(),
                console: None,
            };
            let error = check(&spec, &Bounds { vmm, vcpus: 2, slots: 3 }).err()?;
            Some((error.to_string(), error.hint().unwrap()))
        };
        assert_eq!(refused("V", 2, 3, false), None);
        assert_eq!(refused("V", 1, 2, true), None);
        let (error, hint) = refused("V", 3, 3, false).unwrap();
        assert_eq!(error, "a VM of V's cannot have 3 vCPUs");
        assert_eq!(hint, "give it 1 to 2 (--cpus), or use --backend qemu");
        let (error, hint) = refused(crate::qemu::NAME, 2, 3, true).unwrap();
        assert_eq!(error, "3 disks are more than the 2 that a VM of QEMU's can have");
        assert_eq!(hint, "attach fewer disks");
    }
}
