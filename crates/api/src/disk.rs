//! Disks that outlive a sandbox, as they are named by users: which file or volume, and where in the
//! guest its file system is mounted.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::{Explain, Kind};

/// Size of a volume unless asked otherwise, MiB; it takes space only as it is written.
pub const DEFAULT_VOLUME_MB: u64 = 10 * 1024;

/// The smallest volume, MiB: an ext4 file system with its journal and room for files.
pub const MIN_VOLUME_MB: u64 = 16;

/// The largest volume, MiB: ext4's limit with blocks of 4 KiB, 16 TiB.
pub const MAX_VOLUME_MB: u64 = 16 * 1024 * 1024;

/// The longest name of a volume, bytes.
const MAX_NAME: usize = 64;

/// The longest path of a mount point, bytes (`PATH_MAX` less what the guest puts in front of it).
const MAX_MOUNT_POINT: usize = 4000;

/// Where the guest's kernel shows itself; nothing can be mounted over it.
const KERNELS_OWN: [&str; 3] = ["/proc", "/sys", "/dev"];

/// A disk of a sandbox besides its own: `PATH:/GUEST[:ro]` or `@VOLUME:/GUEST[:ro]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// What it is kept in.
    pub source: DiskSource,
    /// Where the guest has it.
    pub target: MountPoint,
    /// Whether nobody in the guest may change it.
    #[serde(default)]
    pub read_only: bool,
}

/// What a disk is kept in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskSource {
    /// A file of the user's that holds an ext4 file system.
    File(PathBuf),
    /// A named volume.
    Volume(VolumeName),
}

/// Not a disk that a sandbox can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidDisk {
    /// There is no `:/GUEST`.
    #[error("{0:?} does not say where: use FILE:/PATH[:ro] or @VOLUME:/PATH[:ro]")]
    NoMountPoint(String),
    /// Something else than `ro` or `rw` behind the mount point.
    #[error("unknown option {0:?} of a disk: the only ones are ro and rw")]
    Option(String),
    /// Nothing in front of the mount point.
    #[error("{0:?} does not name a file or a volume")]
    NoSource(String),
    /// The volume's name.
    #[error(transparent)]
    Volume(#[from] InvalidVolumeName),
    /// The mount point.
    #[error(transparent)]
    MountPoint(#[from] InvalidMountPoint),
}

impl DiskSpec {
    /// A disk of its parts, as they are typed.
    ///
    /// # Errors
    /// When `source` is empty or a volume's name is not one, or nothing can be mounted at `target`.
    pub fn new(source: &str, target: &str, read_only: bool) -> Result<Self, InvalidDisk> {
        let target = target.parse()?;
        let source = match source.strip_prefix('@') {
            Some(name) => DiskSource::Volume(name.parse()?),
            None if source.is_empty() => return Err(InvalidDisk::NoSource(source.to_owned())),
            None => DiskSource::File(source.into()),
        };
        Ok(Self { source, target, read_only })
    }
}

impl FromStr for DiskSpec {
    type Err = InvalidDisk;

    /// Read from the right, because a file's name may have colons.
    fn from_str(text: &str) -> Result<Self, InvalidDisk> {
        let no_mount_point = || InvalidDisk::NoMountPoint(text.to_owned());
        let (front, last) = text.rsplit_once(':').ok_or_else(no_mount_point)?;
        if last.starts_with('/') {
            return Self::new(front, last, false);
        }
        let (source, target) = front.rsplit_once(':').ok_or_else(no_mount_point)?;
        match last {
            "ro" | "rw" if target.starts_with('/') => Self::new(source, target, last == "ro"),
            // A relative mount point, or no option but a part of a file's name.
            _ if !target.starts_with('/') => Err(no_mount_point()),
            option => Err(InvalidDisk::Option(option.to_owned())),
        }
    }
}

impl fmt::Display for DiskSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Volume(name) => write!(f, "@{name}"),
        }
    }
}

impl Explain for InvalidDisk {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }
}

/// The name of a volume: letters, digits, `_`, `.` and `-`, a letter or digit first, at most 64. So
/// it is a file's name, hides from nobody and leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct VolumeName(String);

/// Not the name of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{0:?} cannot be the name of a volume: letters, digits, _ . and -, \
     starting with a letter or digit, at most {MAX_NAME}"
)]
pub struct InvalidVolumeName(String);

impl Explain for InvalidVolumeName {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }
}

impl VolumeName {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = InvalidVolumeName;

    fn from_str(text: &str) -> Result<Self, InvalidVolumeName> {
        let first = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let all = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if first && all && text.len() <= MAX_NAME {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidVolumeName(text.to_owned()))
        }
    }
}

impl TryFrom<String> for VolumeName {
    type Error = InvalidVolumeName;

    fn try_from(text: String) -> Result<Self, InvalidVolumeName> {
        text.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where in the guest a disk is mounted: an absolute path without `.`, `..` and empty parts, that is
/// neither the root nor the kernel's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MountPoint(String);

/// Nothing can be mounted there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidMountPoint {
    /// It does not start with `/`.
    #[error("the mount point {0:?} is not an absolute path")]
    Relative(String),
    /// It has a `..`, which would mean another place where the image has a link.
    #[error("the mount point {0:?} has a `..` in it")]
    Parent(String),
    /// The root, or a place of the guest's kernel.
    #[error("nothing can be mounted at {0:?}: /, /proc, /sys and /dev are the sandbox's own")]
    Reserved(String),
    /// Control characters, or longer than the guest's kernel takes.
    #[error("{0:?} cannot be a mount point")]
    Unusable(String),
}

impl MountPoint {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MountPoint {
    type Err = InvalidMountPoint;

    fn from_str(text: &str) -> Result<Self, InvalidMountPoint> {
        let given = || text.to_owned();
        if !text.starts_with('/') {
            return Err(InvalidMountPoint::Relative(given()));
        }
        if text.len() > MAX_MOUNT_POINT || text.contains(char::is_control) {
            return Err(InvalidMountPoint::Unusable(given()));
        }
        let mut path = String::with_capacity(text.len());
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => return Err(InvalidMountPoint::Parent(given())),
                part => path.extend(["/", part]),
            }
        }
        let below =
            |own: &str| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if path.is_empty() || KERNELS_OWN.into_iter().any(below) {
            return Err(InvalidMountPoint::Reserved(given()));
        }
        Ok(Self(path))
    }
}

impl TryFrom<String> for MountPoint {
    type Error = InvalidMountPoint;

    fn try_from(text: String) -> Result<Self, InvalidMountPoint> {
        text.parse()
    }
}

impl From<MountPoint> for String {
    fn from(path: MountPoint) -> Self {
        path.0
    }
}

impl fmt::Display for MountPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(text: &str) -> Result<DiskSpec, InvalidDisk> {
        text.parse()
    }

    fn file(path: &str, target: &str, read_only: bool) -> DiskSpec {
        DiskSpec { source: DiskSource::File(path.into()), target: target.parse().unwrap(), read_only }
    }

    #[test]
    fn files_and_volumes_have_a_place_in_the_guest() {
        assert_eq!(disk("data.ext4:/mnt"), Ok(file("data.ext4", "/mnt", false)));
        assert_eq!(disk("/a/b.ext4:/mnt:ro"), Ok(file("/a/b.ext4", "/mnt", true)));
        assert_eq!(disk("/a/b.ext4:/mnt:rw"), Ok(file("/a/b.ext4", "/mnt", false)));
        let volume = disk("@data:/var/lib/db/").unwrap();
        assert_eq!((volume.source.to_string(), volume.target.as_str()), ("@data".into(), "/var/lib/db"));
    }

    #[test]
    fn a_files_name_may_have_colons() {
        assert_eq!(disk("a:b.ext4:/mnt"), Ok(file("a:b.ext4", "/mnt", false)));
        assert_eq!(disk("a:/b:/mnt:ro"), Ok(file("a:/b", "/mnt", true)));
        assert_eq!(disk("ro:/mnt"), Ok(file("ro", "/mnt", false)));
    }

    #[test]
    fn what_is_wrong_with_a_disk_is_said() {
        let no_mount_point = |text: &str| Err(InvalidDisk::NoMountPoint(text.to_owned()));
        for text in ["", "data.ext4", "@data", "data.ext4:ro", "data.ext4:mnt", "a:mnt:ro", ":"] {
            assert_eq!(disk(text), no_mount_point(text), "{text}");
        }
        assert_eq!(disk("a:/mnt:rx"), Err(InvalidDisk::Option("rx".into())));
        assert_eq!(disk(":/mnt"), Err(InvalidDisk::NoSource(String::new())));
        assert!(matches!(disk("@../x:/mnt"), Err(InvalidDisk::Volume(_))));
        assert!(matches!(disk("a:/proc:ro"), Err(InvalidDisk::MountPoint(_))));
    }

    #[test]
    fn mount_points_are_normalized_and_never_the_kernels() {
        let path = |text: &str| text.parse::<MountPoint>().map(String::from);
        assert_eq!(path("//mnt/./a//b/").as_deref(), Ok("/mnt/a/b"));
        assert_eq!(path("/processes").as_deref(), Ok("/processes"));
        assert!(matches!(path("mnt"), Err(InvalidMountPoint::Relative(_))));
        assert!(matches!(path("/mnt/../etc"), Err(InvalidMountPoint::Parent(_))));
        for reserved in ["/", "/.", "//", "/proc", "/./sys/", "/dev/shm", "/proc/1"] {
            assert!(matches!(path(reserved), Err(InvalidMountPoint::Reserved(_))), "{reserved}");
        }
        assert!(matches!(path("/a\nb"), Err(InvalidMountPoint::Unusable(_))));
        assert!(matches!(path(&"/a".repeat(3000)), Err(InvalidMountPoint::Unusable(_))));
    }

    #[test]
    fn what_is_read_is_checked_like_what_is_typed() {
        use serde::de::IntoDeserializer as _;
        use serde::de::value::{Error, StrDeserializer};
        let text = |text: &'static str| -> StrDeserializer<'static, Error> { text.into_deserializer() };
        assert_eq!(MountPoint::deserialize(text("/mnt/")).map(String::from).as_deref(), Ok("/mnt"));
        assert!(MountPoint::deserialize(text("/mnt/../proc")).is_err());
        assert!(VolumeName::deserialize(text("../data")).is_err());
    }

    #[test]
    fn volume_names_lead_nowhere() {
        let longest = "x".repeat(64);
        for good in ["a", "0", "data", "my-data_2.old", longest.as_str()] {
            assert!(good.parse::<VolumeName>().is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for wrong in ["", ".", "..", ".hidden", "-f", "_a", "a/b", "a b", "ä", "a\0", long.as_str()] {
            assert!(wrong.parse::<VolumeName>().is_err(), "{wrong:?}");
        }
    }
}
