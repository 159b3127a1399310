//! Disks of the user's with file systems of their own, mounted in the root of commands.
//!
//! Their mount points are looked up in a root that belongs to a hostile image, so where the look-up
//! has ended is checked. When that is a place of the kernel's, or would hide another disk, nothing is
//! mounted and the VM does not boot: data must never go anywhere else than the user said.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use proto::boot::Mount;
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use thiserror::Error;

use super::disks::Devices;
use super::filesystem::{Opt, attach, create, duplicate};
use super::root::CONFINED_ROOT;
use super::{BootError, beneath};

/// A disk cannot be mounted where it shall be.
#[derive(Debug, Error)]
pub(crate) enum ExtraError {
    /// Another file system, or none.
    #[error("the disk for {0} is not an ext4 file system; make one with `mkfs.ext4`")]
    NotExt4(String),
    /// The kernel does not trust it.
    #[error("the file system on the disk for {0} is damaged; repair it with `e2fsck -f`")]
    Damaged(String),
    /// It was not unmounted and cannot be written to.
    #[error(
        "the disk for {0} was not unmounted cleanly and must be recovered first: use it once without :ro"
    )]
    Unrecovered(String),
    /// Any other failure of the disk.
    #[error("cannot mount the disk for {target}")]
    Mount {
        /// Its mount point.
        target: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no directory, and none can be made.
    #[error("cannot mount a disk at {target}")]
    MountPoint {
        /// The mount point.
        target: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A link of the image leads to where nothing of the user's can be.
    #[error("cannot mount a disk at {target}: in this image that leads to {place}")]
    Place {
        /// The mount point.
        target: String,
        /// Where it leads.
        place: String,
    },
    /// An earlier disk would vanish under this one.
    #[error("cannot mount a disk at {target}: it would hide the disk at {hidden}")]
    Hidden {
        /// The mount point.
        target: String,
        /// The other disk's.
        hidden: String,
    },
}

/// A mounted disk that is not attached anywhere yet.
#[derive(Debug)]
pub(super) struct Extra {
    mount: OwnedFd,
    target: String,
}

/// Mounts the file systems, in the order in which they are to be attached.
pub(super) fn mount(devices: Devices<'_>, mounts: &[Mount]) -> Result<Vec<Extra>, BootError> {
    outermost_first(mounts).into_iter().map(|mount| mount_one(devices, mount)).collect()
}

/// Attaches them below both roots.
pub(super) fn attach_all(
    extra: Vec<Extra>,
    confined: &OwnedFd,
    privileged: &OwnedFd,
) -> Result<(), ExtraError> {
    let mut places: Vec<(String, String)> = Vec::new();
    for disk in extra {
        let target = &disk.target;
        let failed = |source| ExtraError::MountPoint { target: target.clone(), source };
        let directory = directory(confined, target).map_err(failed)?;
        let place = place(&directory).map_err(failed)?;
        if !is_free(&place) {
            return Err(ExtraError::Place { target: target.clone(), place });
        }
        if let Some((_, hidden)) = places.iter().find(|(earlier, _)| is_below(earlier, &place)) {
            return Err(ExtraError::Hidden { target: target.clone(), hidden: hidden.clone() });
        }
        places.push((place, target.clone()));
        disk.attach(directory, privileged).map_err(failed)?;
    }
    Ok(())
}

impl Extra {
    /// Attaches it at `confined`, and where the same directory is below the privileged root. Only what
    /// is attached can be duplicated, so the one with more rights goes first.
    fn attach(&self, confined: OwnedFd, privileged: &OwnedFd) -> io::Result<()> {
        attach(&self.mount, directory(privileged, &self.target)?)?;
        attach(duplicate(&self.mount, MountAttrFlags::MOUNT_ATTR_NOSUID)?, confined)
    }
}

fn directory(root: &OwnedFd, target: &str) -> io::Result<OwnedFd> {
    beneath::deep_directory(root, target.trim_start_matches('/'), 0o755)
}

fn mount_one(devices: Devices<'_>, mount: &Mount) -> Result<Extra, BootError> {
    let target = mount.target.clone();
    let device = devices.find(&mount.serial)?;
    // A file system that is found to be damaged while it is used is not damaged further.
    let options = [
        Opt::Value("source", &device),
        Opt::Value("errors", "remount-ro"),
        Opt::Flag(if mount.read_only { "ro" } else { "rw" }),
    ];
    // A device node on it would be a way around every permission of the sandbox.
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    if mount.read_only {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    match create("ext4", &options, attributes) {
        Ok(mount) => Ok(Extra { mount, target }),
        Err(error) => Err(explain(target, error).into()),
    }
}

/// What ext4 means by its errors at mounting.
fn explain(target: String, source: io::Error) -> ExtraError {
    match Errno::from_io_error(&source) {
        Some(Errno::INVAL) => ExtraError::NotExt4(target),
        // EFSCORRUPTED and EFSBADCRC.
        Some(Errno::UCLEAN | Errno::BADMSG) => ExtraError::Damaged(target),
        Some(Errno::ROFS) => ExtraError::Unrecovered(target),
        _ => ExtraError::Mount { target, source },
    }
}

/// Mounts sorted so that one below another comes after it.
fn outermost_first(mounts: &[Mount]) -> Vec<&Mount> {
    let mut sorted: Vec<_> = mounts.iter().collect();
    sorted.sort_by_key(|mount| mount.target.matches('/').count());
    sorted
}

/// Where a directory below the confined root is, as a path in that root.
fn place(directory: impl AsFd) -> io::Result<String> {
    let link = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    let path = fs::read_link(link)?;
    let path = path.strip_prefix(CONFINED_ROOT).map_err(|_| io::Error::from(Errno::XDEV))?;
    Ok(Path::new("/").join(path).to_string_lossy().into_owned())
}

/// Whether a disk may be at this place: not at the root, and not where the kernel's file systems are
/// mounted next.
fn is_free(place: &str) -> bool {
    place != "/" && !["/proc", "/sys", "/dev"].iter().any(|own| is_below(place, own))
}

/// Whether `path` is `directory` or below it.
fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_another_comes_after_it() {
        let mounts = ["/a/b/c", "/x", "/a", "/a/b"].map(|target| Mount {
            serial: String::new(),
            target: target.to_owned(),
            read_only: false,
        });
        let order: Vec<_> = outermost_first(&mounts).iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(order, ["/x", "/a", "/a/b", "/a/b/c"]);
    }

    #[test]
    fn places_of_the_kernels_are_not_free() {
        for taken in ["/", "/proc", "/proc/1/fd", "/sys/fs", "/dev"] {
            assert!(!is_free(taken), "{taken}");
        }
        for free in ["/mnt", "/device", "/usr/proc", "/var/lib/x"] {
            assert!(is_free(free), "{free}");
        }
    }

    #[test]
    fn a_disk_is_hidden_by_one_at_or_above_its_place() {
        assert!(is_below("/a/b", "/a") && is_below("/a", "/a"));
        assert!(!is_below("/ab", "/a") && !is_below("/a", "/a/b"));
    }

    #[test]
    fn errors_of_ext4_are_told_in_words() {
        let text = |errno: Errno| explain("/mnt".to_owned(), errno.into()).to_string();
        assert!(text(Errno::INVAL).contains("/mnt is not an ext4 file system"));
        assert!(text(Errno::UCLEAN).contains("e2fsck"));
        assert!(text(Errno::ROFS).contains("without :ro"));
        assert!(text(Errno::IO).contains("cannot mount the disk for /mnt"));
    }
}
