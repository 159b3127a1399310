//! The kernel's own settings: mounts of the agent, host name, clock, entropy, network, limits.

use std::fs;
use std::time::Duration;

use proto::boot::BootConfig;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::MountAttrFlags;
use rustix::process::{Resource, Rlimit, setrlimit, umask};
use rustix::system::sethostname;
use rustix::time::{ClockId, Timespec, clock_settime};

use super::filesystem::{attach, create};
use super::{BootError, beneath};

/// Mounts `/dev`, `/proc` and `/sys` for the agent itself.
pub(super) fn mount_own_file_systems() -> Result<(), BootError> {
    for (kind, name) in [("devtmpfs", "dev"), ("proc", "proc"), ("sysfs", "sys")] {
        let mounted = create(kind, &[], MountAttrFlags::empty())
            .and_then(|mount| attach(mount, beneath::directory(CWD, name, 0o755)?));
        mounted.map_err(|error| BootError::step(format!("mount {kind} on /{name}"), error))?;
    }
    Ok(())
}

/// The null device where no command can change it. In the `/dev` of commands root can remove it or put
/// something else in its place, and that of privileged ones is the agent's own.
pub(crate) const NULL: &str = "/null";

/// Makes [`NULL`].
pub(super) fn make_null() -> Result<(), BootError> {
    let number = makedev(1, 3);
    mknodat(CWD, NULL, FileType::CharacterDevice, Mode::from_raw_mode(0o444), number)
        .map_err(|error| BootError::step(format!("make {NULL}"), error))
}

/// Makes the kernel wait actively where it would wait for a clock tick or two: moving processes between
/// control groups, mounting and unmounting then take a tenth of the time.
pub(super) fn expedite() -> Result<(), BootError> {
    fs::write("/sys/kernel/rcu_expedited", "1")
        .map_err(|error| BootError::step("expedite the kernel's grace periods", error))
}

/// Sets what the agent and, through inheritance, every command lives with.
pub(super) fn guard_process() -> Result<(), BootError> {
    umask(Mode::from_raw_mode(0o022));
    // If memory runs out in spite of the commands' limit, the VM must not lose the agent.
    fs::write("/proc/self/oom_score_adj", "-1000")
        .map_err(|error| BootError::step("protect the agent from lack of memory", error))?;
    for (resource, soft, hard) in LIMITS {
        setrlimit(*resource, Rlimit { current: *soft, maximum: *hard })
            .map_err(|error| BootError::step(format!("set the limit of {resource:?}"), error))?;
    }
    Ok(())
}

/// Limits of processes, soft and hard; `None` is none.
const LIMITS: &[(Resource, Option<u64>, Option<u64>)] = &[
    (Resource::Nofile, Some(1_048_576), Some(1_048_576)),
    // Per user and over all commands, which is not what anybody means; the control group limits them.
    (Resource::Nproc, None, None),
    (Resource::Core, Some(0), None),
];

/// Seeds the random generator and sets the clock.
pub(super) fn set_entropy_and_clock(config: &BootConfig) -> Result<(), BootError> {
    sys::random::credit_entropy(&config.entropy)
        .map_err(|error| BootError::step("seed the random generator", error))?;
    let time = Duration::from_nanos(config.clock_unix_ns);
    let time = Timespec::try_from(time)
        .map_err(|_| BootError::step("set the clock", std::io::ErrorKind::InvalidInput))?;
    clock_settime(ClockId::Realtime, time).map_err(|error| BootError::step("set the clock", error))
}

/// Sets everything else that commands can see.
pub(super) fn set(config: &BootConfig) -> Result<(), BootError> {
    sethostname(config.hostname.as_bytes()).map_err(|error| BootError::step("set the host name", error))?;
    sys::loopback::bring_up().map_err(|error| BootError::step("bring up the loopback interface", error))?;
    for (name, value) in SETTINGS {
        fs::write(format!("/proc/sys/{name}"), value)
            .map_err(|error| BootError::step(format!("set {name} to {value}"), error))?;
    }
    Ok(())
}

const SETTINGS: &[(&str, &str)] = &[
    // As container engines set them: `ping` and low ports need no capabilities.
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    // Errors go to the console, whatever the kernel was told for its boot.
    ("kernel/printk", "4"),
    // Segments are up to 64 KiB here, and one that is half read still counts whole. In the usual 128 KiB a
    // reader that is slow at first has no room for what it has offered a window for, drops it, and waits a
    // second until it is sent again. This is twice what the host has on its way.
    ("net/ipv4/tcp_rmem", "4096 1048576 6291456"),
];
