//! The sandbox's root: an overlay of the disks with the kernel's file systems in it.
//!
//! It is put together twice, on the same overlay: at [`CONFINED_ROOT`] as commands see it, and at
//! [`PRIVILEGED_ROOT`] with all devices and a writable `/sys`, for privileged ones. A command moves
//! its root to `/` in a mount namespace of its own and mounts `/proc` of its own PID namespace there.
//!
//! `/run` and `/tmp` are the image's, on the scratch disk: images ship directories in them that their
//! programs need, and what is put into `/tmp` may be larger than the memory.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, chmodat, makedev, mknodat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount as unmount_at};

use super::disks::{Disks, SCRATCH};
use super::extra::{self, Extra};
use super::filesystem::{Opt, attach, create, duplicate};
use super::{BootError, beneath, cgroups};

/// The root of commands.
pub(crate) const CONFINED_ROOT: &str = "/confined";

/// The root of privileged commands.
pub(crate) const PRIVILEGED_ROOT: &str = "/privileged";

/// The mounted overlay, which nobody uses yet.
#[derive(Debug)]
pub(super) struct Overlay {
    mount: OwnedFd,
}

/// File systems that all commands share, privileged or not, where the agent has them: only what is
/// attached somewhere can be duplicated.
#[derive(Debug)]
struct SharedFileSystems {
    terminals: OwnedFd,
    memory: OwnedFd,
    queues: OwnedFd,
    sys: OwnedFd,
    cgroups: OwnedFd,
}

const HARMLESS: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

impl Overlay {
    /// Mounts it at [`CONFINED_ROOT`].
    ///
    /// If the scratch disk is durable, so are the writes that a command has synced, and the overlay can be
    /// mounted again on what an earlier VM left of it.
    pub(super) fn mount(disks: &Disks, durable: bool) -> Result<Self, BootError> {
        Self::try_mount(disks, durable)
            .map_err(|error| BootError::step("mount the overlay of the disks", error))
    }

    fn try_mount(disks: &Disks, durable: bool) -> io::Result<Self> {
        let (upper, work) = (disks.scratch.join("upper"), disks.scratch.join("work"));
        for directory in [&upper, &work] {
            match fs::create_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let text = |path: &Path| path.to_str().expect("one of our own names").to_owned();
        let (upper, work) = (text(&upper), text(&work));
        let layers: Vec<_> = disks.layers.iter().rev().map(|layer| text(layer)).collect();
        let mut options: Vec<_> = layers.iter().map(|layer| Opt::Value("lowerdir+", layer)).collect();
        options.extend([
            Opt::Value("upperdir", &upper),
            Opt::Value("workdir", &work),
            // Renaming a directory of the image works as on any file system (it fails otherwise).
            Opt::Value("redirect_dir", "on"),
            // chown and chmod of a large file of the image do not copy it. What such attributes in
            // an image could redirect to is in that image only.
            Opt::Value("metacopy", "on"),
            // Hard links of the image stay links to one file when it is written.
            Opt::Value("index", "on"),
        ]);
        if !durable {
            // The scratch disk does not outlive the VM, so nothing is gained by waiting for it.
            options.push(Opt::Flag("volatile"));
        }
        // Device nodes of an image open nothing: a disk's raw node would be a way around every
        // permission of the files on it.
        let mount = create("overlay", &options, MountAttrFlags::MOUNT_ATTR_NODEV)?;
        attach(&mount, beneath::directory(CWD, &CONFINED_ROOT[1..], 0o700)?)?;
        Ok(Self { mount })
    }

    /// The root directory.
    pub(super) fn root(&self) -> impl AsFd {
        self.mount.as_fd()
    }

    /// Mounts everything else, for both kinds of commands; gives the file system of terminals.
    pub(super) fn assemble(self, extra: Vec<Extra>) -> Result<OwnedFd, BootError> {
        let kernels = |error| BootError::step("mount the kernel's file systems", error);
        let privileged = self.duplicate().map_err(kernels)?;
        // Below the kernel's file systems, so that nothing of the image's or on a disk can hide those.
        extra::attach_all(extra, &self.mount, &privileged)?;
        self.try_assemble(&privileged).map_err(kernels)
    }

    /// Mounts it again at [`PRIVILEGED_ROOT`].
    fn duplicate(&self) -> io::Result<OwnedFd> {
        let privileged = duplicate(&self.mount, MountAttrFlags::empty())?;
        sys::mount::set_attributes(
            privileged.as_fd(),
            MountAttrFlags::empty(),
            MountAttrFlags::MOUNT_ATTR_NODEV,
        )?;
        attach(&privileged, beneath::directory(CWD, &PRIVILEGED_ROOT[1..], 0o700)?)?;
        Ok(privileged)
    }

    fn try_assemble(self, privileged: &OwnedFd) -> io::Result<OwnedFd> {
        for (name, mode) in [("proc", 0o555), ("run", 0o755), ("tmp", 0o1777)] {
            match name {
                "proc" => beneath::directory(&self.mount, name, mode)?,
                _ => beneath::linked_directory(&self.mount, name, mode)?,
            };
        }
        let shared = SharedFileSystems::mount()?;
        shared.attach_to(privileged, &devices()?, MountAttrFlags::empty())?;
        let safe = create("tmpfs", SAFE_DEV, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
        fill(&safe)?;
        shared.attach_to(&self.mount, &safe, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
        Ok(shared.terminals)
    }
}

impl SharedFileSystems {
    fn mount() -> io::Result<Self> {
        let no_suid_exec = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        // 5 is the group `tty` of every distribution; ptmx must be open to all users.
        let terminals = [Opt::Value("mode", "0620"), Opt::Value("ptmxmode", "0666"), Opt::Value("gid", "5")];
        let memory = [Opt::Value("mode", "1777"), Opt::Value("source", "shm")];
        let shared = Self {
            terminals: create("devpts", &terminals, no_suid_exec)?,
            memory: create("tmpfs", &memory, HARMLESS)?,
            queues: create("mqueue", &[], HARMLESS)?,
            sys: place("/sys")?,
            cgroups: place(cgroups::SANDBOX)?,
        };
        shared.in_dev().try_for_each(|(name, file_system)| {
            attach(file_system, beneath::directory(place("/dev")?, name, 0o755)?)
        })?;
        Ok(shared)
    }

    fn in_dev(&self) -> impl Iterator<Item = (&'static str, &OwnedFd)> {
        [("pts", &self.terminals), ("shm", &self.memory), ("mqueue", &self.queues)].into_iter()
    }

    /// Attaches `devices` and them below `root`; `/sys` with these attributes besides its own.
    fn attach_to(&self, root: &OwnedFd, devices: &OwnedFd, sys: MountAttrFlags) -> io::Result<()> {
        attach(devices, beneath::directory(root, "dev", 0o755)?)?;
        links(devices)?;
        for (name, file_system) in [("pts", &self.terminals), ("shm", &self.memory), ("mqueue", &self.queues)]
        {
            let target = beneath::directory(devices, name, 0o755)?;
            attach(duplicate(file_system, MountAttrFlags::empty())?, target)?;
        }
        let sysfs = duplicate(&self.sys, HARMLESS | sys)?;
        attach(&sysfs, beneath::directory(root, "sys", 0o555)?)?;
        let cgroups = openat(&sysfs, "fs/cgroup", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        attach(duplicate(&self.cgroups, HARMLESS | sys)?, cgroups)
    }
}

/// `/dev` with all devices that the kernel knows.
fn devices() -> io::Result<OwnedFd> {
    duplicate(place("/dev")?, MountAttrFlags::MOUNT_ATTR_NOSUID)
}

/// A place of the agent's own.
fn place(path: &str) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Options of the `/dev` of commands.
const SAFE_DEV: &[Opt<'_>] =
    &[Opt::Value("mode", "755"), Opt::Value("size", "64k"), Opt::Value("source", "dev")];

/// Makes in `dev` what every program needs and nothing that reaches hardware.
fn fill(dev: &OwnedFd) -> io::Result<()> {
    // Numbers of Documentation/admin-guide/devices.txt.
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        let everybody = Mode::from_raw_mode(0o666);
        mknodat(dev, name, FileType::CharacterDevice, everybody, makedev(major, minor))?;
        chmodat(dev, name, everybody, AtFlags::empty())?;
    }
    Ok(symlinkat("pts/ptmx", dev, "ptmx")?)
}

/// Makes the links in `dev` that shells rely on.
fn links(dev: &OwnedFd) -> io::Result<()> {
    for (target, name) in [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ] {
        match symlinkat(target, dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Takes the root, or as much of it as there is, apart, so that the disks are whole. All commands must
/// have ended.
pub(super) fn unmount() {
    rustix::fs::sync();
    for place in [CONFINED_ROOT, PRIVILEGED_ROOT, SCRATCH] {
        match unmount_at(place, UnmountFlags::DETACH) {
            // Not mounted (yet).
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => eprintln!("matchlock: cannot unmount {place}: {error}"),
        }
    }
    rustix::fs::sync();
}
