//! Bare QEMU: the machine and the kernel that ours have, and nothing that we add to them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use harness::{Matchlock, Running, tool};
use serde::Deserialize;

const LIMIT: Duration = Duration::from_secs(60);

/// A kernel of `kernel ls --json`.
#[derive(Deserialize)]
struct Kernel {
    path: PathBuf,
    default: bool,
}

/// The kernel that `run` boots.
pub(crate) fn kernel(matchlock: &Matchlock) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MATCHLOCK_KERNEL") {
        return Ok(path.into());
    }
    let list = matchlock.run(&["kernel", "ls", "--json"]).success();
    let kernels: Vec<Kernel> = serde_json::from_slice(&list.stdout)?;
    let default = kernels.into_iter().find(|kernel| kernel.default);
    Ok(default.context("`matchlock kernel ls --json` lists no default kernel")?.path)
}

/// An initramfs, made in `directory`, that holds busybox and a script for it, as `/busybox` and `/script`.
pub(crate) fn initramfs(directory: &Path, script: &str) -> Result<PathBuf> {
    initramfs_with(directory, script, &[])
}

/// The same with further files of this host, where they are here.
pub(crate) fn initramfs_with(directory: &Path, script: &str, files: &[PathBuf]) -> Result<PathBuf> {
    let busybox = tool::find("busybox");
    let root = directory.join("root");
    fs::create_dir(&root)?;
    fs::copy(&busybox, root.join("busybox"))?;
    fs::write(root.join("script"), script)?;
    fs::set_permissions(root.join("script"), Permissions::from_mode(0o755))?;
    let mut names = String::from("busybox\nscript\n");
    for file in files {
        let name = file.strip_prefix("/").context("its path is absolute")?;
        let parents: Vec<&Path> = name.ancestors().skip(1).filter(|it| *it != Path::new("")).collect();
        for parent in parents.iter().rev() {
            fs::create_dir_all(root.join(parent))?;
            names += &format!("{}\n", parent.display());
        }
        fs::copy(file, root.join(name))?;
        names += &format!("{}\n", name.display());
    }
    let mut cpio = Command::new(busybox);
    cpio.args(["cpio", "-o", "-H", "newc"]).current_dir(&root).stdin(Stdio::piped());
    let mut cpio = Running::start(&mut cpio, LIMIT);
    cpio.input(names.as_bytes());
    let archive = directory.join("initramfs");
    fs::write(&archive, cpio.wait().success().stdout)?;
    Ok(archive)
}

/// QEMU with the machine that our driver uses, but no device besides a console that says nothing.
/// `init` is the part of the kernel's command line that says what its first process is.
pub(crate) fn qemu(kernel: &Path, initramfs: &Path, cpu: &str, init: &str) -> Command {
    let (acceleration, clock) = match sys::kvm::probe() {
        Ok(_) => (["-accel", "kvm", "-cpu", "host"], String::new()),
        Err(_) => (
            ["-accel", "tcg", "-cpu", cpu],
            format!("tsc_early_khz={} tsc=reliable mitigations=off", sys::tsc::khz()),
        ),
    };
    let mut qemu = Command::new(tool::find("qemu-system-x86_64"));
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "null"]);
    qemu.args(["-M", "microvm,x-option-roms=off,acpi=off,rtc=on,pit=on,pic=on,isa-serial=on"]);
    qemu.args(acceleration)
        .args(["-m", "512M", "-smp", "1", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs);
    qemu.arg("-append").arg(format!("console=ttyS0 quiet reboot=t panic=-1 {clock} {init}"));
    qemu.stdin(Stdio::null());
    qemu
}
