//! What this host has and lacks for running sandboxes, each lack with its fix. The proof is a VM
//! that really boots, in the walls that a sandbox's would have.

mod host;

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::Explain;
use api::spec::Backend;
use image::store::Store;
use net::addresses::GUEST_MAC;
use proto::Port;
use proto::boot::Hello;
use serde::Serialize;
use sys::jail::{Layer, Standing, Wall};
use sys::kvm::KvmUnusable;
use tokio::time::timeout;
use vmm::firecracker::{Firecracker, Options};
use vmm::kernel::Kernels;
use vmm::qemu::{Accelerator, Qemu};
use vmm::{Driver, Exit, Machine, MachineSpec, Nic, Pace};

use crate::agent::read_message;
use crate::home::Home;
use crate::launch::{EXIT_DELAY, GUEST};
use crate::network::MIN_MTU;

/// Free space under which a warning is due, bytes: an image or two.
const LITTLE_SPACE: u64 = 2 << 30;

/// How long the test VM may take.
const BOOT_LIMIT: Duration = Duration::from_secs(30);

/// Memory of the test VM, MiB.
const BOOT_MEMORY_MB: u32 = 128;

/// What a kernel takes to make a VM that waits for something.
const SLOW_CREATION: Duration = Duration::from_millis(5);

/// The option of a control group file system that is to be changed often.
const DYNMODS: &str = "favordynmods";

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Sandboxes run, but slower or with fewer walls than they could.
    Warning,
    /// Sandboxes do not run.
    Failure,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub subject: &'static str,
    /// How it is.
    pub severity: Severity,
    /// In words.
    pub found: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct Host<'a> {
    /// `$PATH`.
    pub path: &'a OsStr,
    /// The state directory.
    pub home: &'a Path,
    /// The cache.
    pub cache: &'a Path,
    /// The kernel that somebody asked for.
    pub kernel: Option<PathBuf>,
    /// The VMM that somebody asked for.
    pub backend: Backend,
    /// How Firecracker is to be used.
    pub firecracker: Options,
}

/// Looks at everything. Must be called within a tokio runtime.
pub async fn diagnose(host: &Host<'_>) -> Vec<Finding> {
    let mut findings = vec![acceleration()];
    findings.extend(host::findings());
    findings.extend(vmms(host));
    let kernel = Kernels::new(host.cache).choose(host.kernel.as_deref());
    let (finding, kernel) = found("kernel", kernel, |path| path.display().to_string());
    findings.push(finding);
    let driver = Driver::choose(host.backend, host.path, host.firecracker.clone());
    if let (Ok(driver), Ok(kernel)) = (driver, kernel) {
        findings.extend(try_boot(&driver, &kernel).await);
    }
    findings.push(found("state directory", Home::open(host.home), |_| host.home.display().to_string()).0);
    findings.push(
        found(
            "image store",
            Store::open(host.cache.join("images")).and_then(|store| store.list()),
            |images| format!("{} images in {}", images.len(), host.cache.display()),
        )
        .0,
    );
    findings.push(space("free space for sandboxes", host.home));
    findings.push(space("free space for images", host.cache));
    findings
}

/// The VMMs. Only one has to be there: that which was asked for, or which `--backend auto` takes.
fn vmms(host: &Host<'_>) -> [Finding; 2] {
    let place = |program: &Path| program.display().to_string();
    let subject = "firecracker";
    let well = |found| Finding { subject, severity: Severity::Ok, found, fix: None };
    let (firecracker, needs_qemu) = match host.backend {
        Backend::Qemu => (well("not asked for".to_owned()), true),
        Backend::Firecracker => {
            (found(subject, Firecracker::find(host.path), |found| place(found.program())).0, false)
        }
        Backend::Auto => match Firecracker::preferred(host.path) {
            Ok(firecracker) => {
                (well(format!("{}; --backend auto takes it", place(firecracker.program()))), false)
            }
            Err(why) => (well(format!("--backend auto takes QEMU: {why}")), true),
        },
    };
    let (mut qemu, _) = found("qemu", Qemu::find(host.path), |qemu| place(qemu.program()));
    if !needs_qemu {
        qemu.severity = qemu.severity.min(Severity::Warning);
    }
    [qemu, firecracker]
}

/// The finding of a look that either gives something or an error that explains itself.
fn found<T, E: Explain>(
    subject: &'static str,
    look: Result<T, E>,
    describe: impl FnOnce(&T) -> String,
) -> (Finding, Result<T, E>) {
    let finding = match &look {
        Ok(value) => Finding { subject, severity: Severity::Ok, found: describe(value), fix: None },
        Err(error) => failure(subject, error),
    };
    (finding, look)
}

fn failure(subject: &'static str, error: &impl Explain) -> Finding {
    let mut found = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        found = format!("{found}: {cause}");
        source = cause.source();
    }
    Finding { subject, severity: Severity::Failure, found, fix: error.hint() }
}

fn acceleration() -> Finding {
    let subject = "acceleration";
    match Accelerator::probe() {
        Accelerator::Kvm => {
            let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
            kvm(&mounts, || sys::kvm::creation_time().unwrap_or_default())
        }
        Accelerator::Tcg(reason) => Finding {
            subject,
            severity: Severity::Warning,
            found: format!("none ({reason}); emulation works, programs run 10 to 20 times slower"),
            fix: Some(kvm_fix(reason).to_owned()),
        },
    }
}

/// KVM that works, and takes so long to make a VM, which is measured if something can be done about it. It may
/// start a thread for it, which has to join its maker's control group: since Linux 6.0 that waits for all CPUs,
/// unless control groups are mounted for being changed often (`cgroup-v2.rst`).
fn kvm(mounts: &str, creation_time: impl FnOnce() -> Duration) -> Finding {
    let subject = "acceleration";
    let place = mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, place, "cgroup2", options, ..] if !options.split(',').any(|it| it == DYNMODS) => Some(place),
        _ => None,
    });
    match place.map(|place| (place, creation_time())) {
        Some((place, creation)) if creation >= SLOW_CREATION => Finding {
            subject,
            severity: Severity::Warning,
            found: format!("KVM; this kernel takes {} ms to make a VM", creation.as_millis()),
            fix: Some(format!("sudo mount -o remount,{DYNMODS} {place} (until the next boot)")),
        },
        _ => Finding { subject, severity: Severity::Ok, found: "KVM".into(), fix: None },
    }
}

fn kvm_fix(reason: &KvmUnusable) -> &'static str {
    match reason {
        KvmUnusable::NoPermission | KvmUnusable::NoDevice => "see /dev/kvm below",
        reason => vmm::kvm_fix(reason),
    }
}

/// Boots a VM without disks, and with a network interface that leads nowhere, until its guest says hello; tells
/// how long that took and which walls stood around it.
async fn try_boot(driver: &Driver, kernel: &Path) -> Vec<Finding> {
    let subject = "test VM";
    let directory = std::env::temp_dir().join(format!("matchlock-diagnose-{}", std::process::id()));
    if let Err(error) = DirBuilder::new().mode(0o700).create(&directory) {
        let found = format!("cannot make {}: {error}", directory.display());
        return vec![Finding { subject, severity: Severity::Failure, found, fix: None }];
    }
    let findings = boot_in(&directory, driver, kernel).await;
    // What is left of it is empty.
    let _ = std::fs::remove_dir_all(&directory);
    findings
}

async fn boot_in(directory: &Path, driver: &Driver, kernel: &Path) -> Vec<Finding> {
    let subject = "test VM";
    let start = Instant::now();
    let booted = driver.boot(MachineSpec {
        vcpus: 1,
        memory_mb: BOOT_MEMORY_MB,
        pace: Pace::Sprint,
        kernel: kernel.to_owned(),
        initramfs: vmm::initramfs::with_init(GUEST),
        disks: Vec::new(),
        nic: Some(Nic { mac: GUEST_MAC, mtu: MIN_MTU }),
        directory: directory.to_owned(),
        console: None,
    });
    let machine = match booted.await {
        Ok(machine) => machine,
        Err(error) => return vec![failure(subject, &error)],
    };
    let (severity, found, fix) = match timeout(BOOT_LIMIT, hello(&machine)).await {
        Ok(Ok(())) => (
            Severity::Ok,
            format!("on {}, said hello after {} ms", driver.name(), start.elapsed().as_millis()),
            None,
        ),
        Ok(Err((reason, fix))) => (Severity::Failure, reason, fix),
        Err(_) => (Severity::Failure, format!("said nothing within {} s", BOOT_LIMIT.as_secs()), None),
    };
    let fix = (severity == Severity::Failure)
        .then(|| fix.unwrap_or_else(|| "build another kernel: matchlock kernel build --force".into()));
    let mut findings = vec![Finding { subject, severity, found, fix }];
    findings.extend(machine.layers().iter().map(wall));
    machine.kill().await;
    findings
}

/// Or why it says none, and what to do about that if it is known.
async fn hello(machine: &Machine) -> Result<(), (String, Option<String>)> {
    let greeting = async {
        let mut stream = machine.channel().accept(Port::Boot).await.map_err(|error| error.to_string())?;
        let _: Hello = read_message(&mut stream).await.map_err(|error| error.to_string())?;
        Ok(())
    };
    let ended = |exit: Exit| (exit.to_string(), exit.hint());
    tokio::select! {
        greeting = greeting => match greeting {
            Ok(()) => Ok(()),
            // Its end says more than that of its channel, and may come behind it.
            Err(error) => Err(timeout(EXIT_DELAY, machine.exited()).await.map_or((error, None), ended)),
        },
        exit = machine.exited() => Err(ended(exit)),
    }
}

fn wall(layer: &Layer) -> Finding {
    let (subject, what, fix) = match layer.wall {
        Wall::DiesWithOwner => ("wall: lifetime", "the VMM dies with its owner", ""),
        Wall::NoPrivileges => ("wall: privileges", "the VMM has none and gains none", ""),
        Wall::SystemCalls => ("wall: system calls", "a filter leaves the VMM few", ""),
        Wall::NothingInherited => ("wall: inheritance", "the VMM has only the files it was given", ""),
        Wall::Limits => ("wall: limits", "memory, files and descriptors of the VMM are bounded", ""),
        Wall::Identity => {
            ("wall: identity", "the VMM is a user that owns nothing", "run matchlock as an ordinary user")
        }
        Wall::Namespaces => (
            "wall: user namespaces",
            "the VMM has no network and sees no other process",
            "see user namespaces above",
        ),
        Wall::Files => (
            "wall: Landlock",
            "the VMM opens no files of yours",
            "use a kernel of 6.12 or later with Landlock enabled (lsm=landlock,…)",
        ),
    };
    let (severity, found) = match &layer.standing {
        Standing::Holds => return Finding { subject, severity: Severity::Ok, found: what.into(), fix: None },
        Standing::Partial => (Severity::Warning, "this kernel is too old for all of it".to_owned()),
        Standing::Missing(reason) => (Severity::Warning, format!("missing: {reason}")),
    };
    Finding { subject, severity, found, fix: (!fix.is_empty()).then(|| fix.to_owned()) }
}

fn space(subject: &'static str, path: &Path) -> Finding {
    let free = rustix::fs::statvfs(path).map(|stat| stat.f_bavail * stat.f_frsize);
    let (severity, found) = match free {
        Ok(free) if free < LITTLE_SPACE => {
            (Severity::Warning, format!("only {} MiB in {}", free >> 20, path.display()))
        }
        Ok(free) => (Severity::Ok, format!("{} GiB in {}", free >> 30, path.display())),
        Err(error) => (Severity::Failure, format!("{}: {error}", path.display())),
    };
    let fix =
        (severity != Severity::Ok).then(|| "free some, for example with `matchlock image gc`".to_owned());
    Finding { subject, severity, found, fix }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_makes_vms_slowly_is_told_how_not_to() {
        let mounts = |option| {
            format!("proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate{option} 0 0\n")
        };
        let slow = kvm(&mounts(""), || Duration::from_millis(12));
        assert_eq!(slow.severity, Severity::Warning);
        assert_eq!(slow.found, "KVM; this kernel takes 12 ms to make a VM");
        let fix = "sudo mount -o remount,favordynmods /sys/fs/cgroup (until the next boot)";
        assert_eq!(slow.fix.as_deref(), Some(fix));
        let well = [
            kvm(&mounts(""), || Duration::from_millis(1)),
            kvm(&mounts(",favordynmods"), || Duration::from_millis(12)),
            kvm("", || Duration::from_millis(12)),
        ];
        for finding in well {
            assert_eq!((finding.severity, finding.fix), (Severity::Ok, None));
        }
    }
}
