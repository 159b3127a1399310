//! From a specification to a running Firecracker: its files, its jail, its sockets.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::{CHANNEL_PORT, Port};
use serde::de::IgnoredAny;
use sys::jail::{Jail, Standing, Wall};
use sys::process::Tap;
use tokio::time::{sleep, timeout};

use super::configuration::{self, Numbers, path_of};
use super::sockets::{self, Folder};
use super::{Api, LEAST_TEXT, NAME, Options, is_known};
use crate::channel::Channel;
use crate::error::VmmError;
use crate::launch::{
    Bounds, Child, Descriptors, Started, check, kernel_file, limits, memory, prepare, sealed_memory,
};
use crate::machine::{Control, Link, Machine, MachineSpec};

/// Of interrupts there are 19: vsock, entropy and the number that tells a machine from its copies have one each.
const BOUNDS: Bounds = Bounds { vmm: NAME, vcpus: 32, slots: 16 };

/// Address space of Firecracker beyond the guest's memory, bytes.
const OVERHEAD: u64 = 1 << 30;

/// Stack of each of its threads, bytes, so that with what musl adds (two pages that guard it, one for its own) it
/// takes 2 MiB, and not 12 KiB more as by default. The API's lies between the program, which begins at a multiple
/// of 2 MiB, and the guest's memory: so that does, too, unless what is made for its devices found no room
/// elsewhere. Else KVM maps the memory by pages of 4 KiB only. Since Linux 6.7 all large mappings are aligned.
const STACK: u64 = (2 << 20) - 3 * 4096;

/// What the names of its vCPUs' threads begin with.
const VCPU: &str = "fc_vcpu";

/// Nobody tells when they are there.
const PAUSE: Duration = Duration::from_millis(1);

/// How long it may take until its API answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the news of its end may come behind the end of its connections.
const EXIT_DELAY: Duration = Duration::from_secs(1);

/// Firecracker started, and our ends of what connects us.
pub(super) struct Launch {
    started: Started,
    folder: Folder,
}

impl Launch {
    /// Prepares and starts it. Blocks for the time of a few system calls.
    pub(super) fn new(program: &Path, options: &Options, mut spec: MachineSpec) -> Result<Self, VmmError> {
        check(&spec, &BOUNDS)?;
        let folder = Folder::new(&spec.directory).map_err(prepare("the folder of Firecracker's sockets"))?;
        let jail = jail(program, &spec, &folder);
        let (output, mut descriptors) = Descriptors::new()?;
        let mut numbers = Numbers {
            kernel: descriptors.add(kernel_file(&spec.kernel)?),
            initramfs: descriptors.add(sealed_memory("initramfs", &mut &spec.initramfs[..])?),
            folder: descriptors
                .add(folder.descriptor().map_err(prepare("the folder of Firecracker's sockets"))?),
            cpu_template: None,
            disks: Vec::new(),
        };
        if let Some(path) = &options.cpu_template {
            let template =
                template(path).map_err(|source| VmmError::CpuTemplate { path: path.clone(), source })?;
            numbers.cpu_template = Some(descriptors.add(sealed_memory("CPU template", &mut &template[..])?));
        }
        for disk in &spec.disks {
            let file = disk.file.try_clone().map_err(prepare("a disk"))?;
            numbers.disks.push(descriptors.add(file));
        }
        let configuration = configuration::of(&spec, options.huge_pages, &numbers);
        let configuration = descriptors.add(sealed_memory("configuration", &mut &configuration[..])?);
        let tap = spec.nic.map(|nic| Tap { mtu: nic.mtu });
        let args = arguments(numbers.folder, configuration);
        let sink = spec.console.take();
        let environment = vec![format!("RUST_MIN_STACK={STACK}")];
        let child = Child { vmm: NAME, program, args, environment, jail, tap };
        let started = child.start(descriptors, output, sink)?;
        if is_root_at_large(&started) {
            return Err(VmmError::Unconfined { vmm: NAME });
        }
        Ok(Self { started, folder })
    }

    /// Starts the tasks that listen to it, and waits until it has said which version it is.
    pub(super) async fn into_machine(mut self) -> Result<Machine, VmmError> {
        let link = self.started.process.take_frames().map(Link::Packets);
        let followed = self.started.follow()?;
        let folder = Arc::new(self.folder);
        let guest = Arc::clone(&folder).guest(CHANNEL_PORT, followed.exit.clone());
        let channel = Channel::connecting(guest, &[Port::Boot]);
        let mut exit = followed.exit.clone();
        let pid = followed.process.pid();
        let api = tokio::select! {
            api = timeout(PATIENCE, known_api(&folder, pid)) => {
                api.unwrap_or(Err(VmmError::Silent { vmm: NAME }))
            }
            _ = exit.wait_for(Option::is_some) => Err(VmmError::Silent { vmm: NAME }),
        };
        let api = match api {
            Ok(api) => Some(api),
            // How it ended says more than that it does not answer.
            Err(VmmError::Api { .. } | VmmError::Silent { .. })
                if timeout(EXIT_DELAY, exit.wait_for(Option::is_some)).await.is_ok() =>
            {
                None
            }
            Err(error) => return Err(error),
        };
        Ok(followed.into_machine(channel, link, Control::Api(api)))
    }
}

/// A CPU template, which is JSON. Firecracker's own words for one that is not would be hard to understand.
fn template(path: &Path) -> io::Result<Vec<u8>> {
    let content = fs::read(path)?;
    serde_json::from_slice::<IgnoredAny>(&content)?;
    Ok(content)
}

async fn known_api(folder: &Folder, pid: u32) -> Result<Api, VmmError> {
    let failed = |source| VmmError::Api { vmm: NAME, source };
    // Not before everything has been made. If Firecracker gives up while a question waits, the thread of its
    // API panics, which its own filter of system calls takes for an attack: then nobody hears the reason.
    while !has_vcpus(pid) {
        sleep(PAUSE).await;
    }
    let api = Api::new(folder.api().await).await.map_err(failed)?;
    let found = api.version().await.map_err(failed)?;
    if is_known(&found) { Ok(api) } else { Err(VmmError::Version { vmm: NAME, found, least: LEAST_TEXT }) }
}

/// Whether the process has threads for vCPUs, which it starts last, or there is no telling.
fn has_vcpus(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let mut names = threads.flatten().filter_map(|thread| fs::read(thread.path().join("comm")).ok());
    names.any(|name| name.starts_with(VCPU.as_bytes()))
}

/// Whether nothing keeps a Firecracker that is root from root's files.
fn is_root_at_large(started: &Started) -> bool {
    let missing = |wall| {
        let mut layers = started.process.layers().iter();
        layers.any(|layer| layer.wall == wall && matches!(layer.standing, Standing::Missing(_)))
    };
    missing(Wall::Identity) && missing(Wall::Files)
}

fn arguments(folder: RawFd, configuration: RawFd) -> Vec<String> {
    let options = [
        ("--id", "matchlock".to_owned()),
        ("--api-sock", sockets::path(folder, sockets::API)),
        ("--config-file", path_of(configuration)),
        // Not between what the guest's console says, and only what may be its last words.
        ("--log-path", path_of(STDERR)),
        ("--level", "Error".to_owned()),
    ];
    options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

const STDERR: RawFd = 2;

/// What Firecracker may touch: itself, the kernel, its disks and sockets.
fn jail(program: &Path, spec: &MachineSpec, folder: &Folder) -> Jail {
    // It opens its disks again, so they count by what they are and not by a name.
    let named = |writable: bool| {
        let disks = spec.disks.iter().filter(move |disk| disk.access.is_writable() == writable);
        disks.map(|disk| PathBuf::from(path_of(disk.file.as_raw_fd())))
    };
    let mut devices = vec![PathBuf::from("/dev/kvm")];
    if spec.nic.is_some() {
        devices.push(PathBuf::from("/dev/net/tun"));
    }
    let limits = limits(spec, OVERHEAD);
    Jail {
        readable: [program.to_owned(), spec.kernel.clone()].into_iter().chain(named(false)).collect(),
        writable: named(true).collect(),
        devices,
        listens_in: Some(folder.path().to_owned()),
        keeps_user: true,
        // The guest's memory may be a file (`memfd_create(2)`), too.
        file_size: limits.file_size.max(memory(spec)),
        ..limits
    }
}
