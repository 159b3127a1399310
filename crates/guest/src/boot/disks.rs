//! The sandbox's disks: found by serial number or by their order, mounted where only the agent sees them.

use std::fs;
use std::path::{Path, PathBuf};

use proto::boot::Root;
use rustix::fs::CWD;
use rustix::mount::MountAttrFlags;

use super::filesystem::{Opt, attach, create};
use super::{BootError, beneath};

/// The mounted disks.
#[derive(Debug)]
pub(super) struct Disks {
    /// Mount points of the image's layers, lowest first; at least one.
    pub(super) layers: Vec<PathBuf>,
    /// Mount point of the scratch disk.
    pub(super) scratch: PathBuf,
}

/// How disks are found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Devices<'c> {
    /// [`proto::boot::BootConfig::disks`].
    order: &'c [String],
}

/// Mounts all of them.
pub(super) fn mount(devices: Devices<'_>, root: &Root) -> Result<Disks, BootError> {
    if root.layers.is_empty() {
        return Err(BootError::NoLayers);
    }
    let mut layers = Vec::with_capacity(root.layers.len());
    for (number, serial) in root.layers.iter().enumerate() {
        let layer = PathBuf::from(format!("/layer-{number}"));
        mount_one(devices, serial, "erofs", &[Opt::Flag("ro")], MountAttrFlags::MOUNT_ATTR_RDONLY, &layer)?;
        layers.push(layer);
    }
    let scratch = PathBuf::from(SCRATCH);
    // Times of reading are the overlay's business; kept here too they would cost a write each.
    mount_one(devices, &root.scratch, "ext4", &[], MountAttrFlags::MOUNT_ATTR_NOATIME, &scratch)?;
    Ok(Disks { layers, scratch })
}

/// Where the scratch disk is mounted.
pub(super) const SCRATCH: &str = "/scratch";

/// Where the kernel lists disks.
const BLOCK_DEVICES: &str = "/sys/block";

fn mount_one(
    devices: Devices<'_>,
    serial: &str,
    kind: &str,
    options: &[Opt<'_>],
    attributes: MountAttrFlags,
    at: &Path,
) -> Result<(), BootError> {
    let device = devices.find(serial)?;
    let failed = |source| BootError::step(format!("mount the {kind} disk {serial:?} ({device})"), source);
    let options = [&[Opt::Value("source", &device)], options].concat();
    let mount = create(kind, &options, attributes).map_err(failed)?;
    let name = at.strip_prefix("/").ok().and_then(Path::to_str).expect("one of the names above");
    let target = beneath::directory(CWD, name, 0o700).map_err(failed)?;
    attach(mount, target).map_err(failed)
}

impl<'c> Devices<'c> {
    /// By their order, or if that is empty by serial number.
    pub(super) fn new(order: &'c [String]) -> Self {
        Self { order }
    }

    /// The device node of the disk with this serial number, which must be there.
    pub(super) fn find(self, serial: &str) -> Result<String, BootError> {
        let found = if self.order.is_empty() {
            find(Path::new(BLOCK_DEVICES), serial)
        } else {
            nth(self.order.iter().position(|name| name == serial))
        };
        found.ok_or_else(|| BootError::NoDisk { serial: serial.to_owned() })
    }
}

/// The device node of a disk by its place: the kernel names virtio's disks in the order in which they are
/// attached.
fn nth(place: Option<usize>) -> Option<String> {
    let letter = (b'a'..=b'z').nth(place?)?;
    Some(format!("/dev/vd{}", char::from(letter)))
}

/// The device node of the disk with this serial number.
fn find(devices: &Path, serial: &str) -> Option<String> {
    let mut devices = fs::read_dir(devices).ok()?.flatten();
    let device = devices.find(|device| {
        // Disks without a serial number have no such file, or an empty one.
        fs::read_to_string(device.path().join("serial"))
            .is_ok_and(|found| !found.trim_end().is_empty() && found.trim_end() == serial)
    })?;
    Some(format!("/dev/{}", device.file_name().to_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_a_serial_number_is_found_by_its_place() {
        let order = ["layer0".to_owned(), "scratch".to_owned()];
        assert_eq!(Devices::new(&order).find("scratch").unwrap(), "/dev/vdb");
        assert!(matches!(Devices::new(&order).find("layer1"), Err(BootError::NoDisk { .. })));
        assert_eq!((nth(Some(25)).as_deref(), nth(Some(26))), (Some("/dev/vdz"), None));
    }

    #[test]
    fn a_disk_is_found_by_its_whole_serial_number() {
        let devices = std::env::temp_dir().join(format!("matchlock-disks-{}", std::process::id()));
        for (name, serial) in [("vda", "layer1"), ("vdb", "layer10\n"), ("vdc", "")] {
            fs::create_dir_all(devices.join(name)).unwrap();
            fs::write(devices.join(name).join("serial"), serial).unwrap();
        }
        fs::create_dir_all(devices.join("loop0")).unwrap();
        assert_eq!(find(&devices, "layer10").as_deref(), Some("/dev/vdb"));
        assert_eq!(find(&devices, "layer1").as_deref(), Some("/dev/vda"));
        assert_eq!(find(&devices, "layer"), None);
        assert_eq!(find(&devices, ""), None, "a disk without a serial number has no name");
        fs::remove_dir_all(devices).unwrap();
    }
}
