//! Control groups (version 2): commands share what is left when the agent has its part.
//!
//! ```text
//! /                     the agent, the spawner, the commands' inits
//! └─ sandbox            the limits; the root of the hierarchy as commands see it
//!    └─ commands        every command
//! ```
//!
//! So a command that takes all memory or all process numbers stops commands, and the agent can still
//! end them. Processes are one level below the limits, because a group that gives its controllers on
//! to others (a container engine in the sandbox makes such) may not have any itself.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::MountAttrFlags;
use rustix::system::sysinfo;

use super::filesystem::{attach, create as create_file_system};
use super::{BootError, beneath};

/// The group of commands.
pub(crate) const COMMANDS: &str = "/sys/fs/cgroup/sandbox/commands";

/// The group with the limits.
pub(super) const SANDBOX: &str = "/sys/fs/cgroup/sandbox";

const ROOT: &str = "/sys/fs/cgroup";

/// Memory that commands cannot have, bytes: for the agent, its inits and its buffers, and for what the
/// kernel needs and charges to nobody.
const RESERVED_MEMORY: u64 = 32 * 1024 * 1024;

/// Processes and threads that commands cannot have: three or four for each of the agent's streams.
const RESERVED_PROCESSES: u64 = 1024;

/// How many process numbers there are: as many as the kernel can have (`PID_MAX_LIMIT` of
/// `include/linux/threads.h`). By default it has fewer than a VM with some GiB of memory can have processes.
const NUMBERS: u64 = 4_194_304;

/// Numbers that one process can keep from all others: its own, its group's and its session's, whose
/// leaders may be gone.
const NUMBERS_OF_ONE: u64 = 3;

/// Length of the period in which a quota of CPU time holds, microseconds (the kernel's default).
const PERIOD_US: u64 = 100_000;

/// Makes the groups, with all limits that do not depend on the configuration.
pub(super) fn create() -> Result<(), BootError> {
    try_create().map_err(|error| BootError::step("make the control groups", error))
}

fn try_create() -> io::Result<()> {
    let cgroups = create_file_system("cgroup2", &[], MountAttrFlags::empty())?;
    attach(cgroups, beneath::directory(CWD, &ROOT[1..], 0o755)?)?;
    fs::create_dir(SANDBOX)?;
    // From here the hierarchy is seen with SANDBOX as its root; this is inherited.
    write(ROOT, "cgroup.subtree_control", CONTROLLERS)?;
    write(SANDBOX, "cgroup.procs", "0")?;
    sys::namespace::root_cgroups_here()?;
    write(ROOT, "cgroup.procs", "0")?;
    write(SANDBOX, "cgroup.subtree_control", CONTROLLERS)?;
    fs::create_dir(COMMANDS)?;

    let system = sysinfo();
    let free = u64::from(system.mem_unit) * system.freeram;
    limit("memory.max", &memory(free).to_string())?;
    fs::write("/proc/sys/kernel/pid_max", NUMBERS.to_string())?;
    limit("pids.max", &processes(&fs::read_to_string("/proc/sys/kernel/threads-max")?).to_string())
}

/// Caps the CPU time of all commands together, thousandths of one CPU.
pub(super) fn limit_cpu(quota_millis: Option<u32>) -> Result<(), BootError> {
    let Some(quota) = quota_millis else { return Ok(()) };
    limit("cpu.max", &cpu_max(quota)).map_err(|error| BootError::step("limit the CPU time", error))
}

/// Controllers of the commands' groups. All that the kernel has: engines in the sandbox expect them.
const CONTROLLERS: &str = "+cpu +cpuset +io +memory +pids";

/// Sets a limit where it holds for everybody, and where programs look for their own.
fn limit(name: &str, value: &str) -> io::Result<()> {
    write(SANDBOX, name, value)?;
    write(COMMANDS, name, value)
}

fn write(group: &str, name: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new(group).join(name), value)
}

/// How much memory commands may have of what is free before anything else runs, bytes.
fn memory(free: u64) -> u64 {
    free.saturating_sub(RESERVED_MEMORY).max(free / 2)
}

/// How many processes and threads commands may have when the kernel allows `threads_max`.
fn processes(threads_max: &str) -> u64 {
    let threads_max = threads_max.trim_end().parse().unwrap_or(2 * RESERVED_PROCESSES);
    let all = threads_max.min(NUMBERS / NUMBERS_OF_ONE);
    all.saturating_sub(RESERVED_PROCESSES).max(all / 2)
}

fn cpu_max(quota_millis: u32) -> String {
    // The kernel takes no quota under a millisecond.
    let quota_us = (u64::from(quota_millis) * PERIOD_US / 1000).max(1000);
    format!("{quota_us} {PERIOD_US}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_cpu_is_a_part_of_the_period() {
        assert_eq!(cpu_max(500), "50000 100000");
        assert_eq!(cpu_max(2500), "250000 100000");
        assert_eq!(cpu_max(1), "1000 100000");
    }

    #[test]
    fn some_memory_is_always_left_for_the_agent() {
        assert_eq!(memory(512 << 20), 480 << 20);
        assert_eq!(memory(40 << 20), 20 << 20);
    }

    #[test]
    fn some_process_numbers_are_always_left_for_the_agent() {
        assert_eq!(processes("30000\n"), 30_000 - 1024);
        assert_eq!(processes("1200"), 600);
        assert_eq!(processes("nonsense"), 1024);
        assert_eq!(processes("8000000"), 4_194_304 / 3 - 1024, "a VM of a terabyte");
    }
}
