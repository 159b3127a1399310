//! What a file has besides its name and content.

/// Number of an inode: its offset in the image, in units of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nid(pub u64);

/// A moment, as `struct timespec` has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after that second, below 10⁹.
    pub nanos: u32,
}

/// Mode, owner and time of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permissions with setuid, setgid and sticky: the low 12 bits of `st_mode`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time; EROFS has no other.
    pub mtime: Timestamp,
}

/// A device's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Major number, 12 bits.
    pub major: u32,
    /// Minor number, 20 bits.
    pub minor: u32,
}

impl Device {
    /// Of what is no device, and of overlayfs's whiteouts.
    pub const NONE: Self = Self { major: 0, minor: 0 };

    /// The kernel's `new_encode_dev`; `None` if the numbers are larger than Linux has.
    #[must_use]
    pub fn encode(self) -> Option<u32> {
        let fits = self.major < 1 << 12 && self.minor < 1 << 20;
        fits.then_some(self.minor & 0xff | self.major << 8 | (self.minor & !0xff) << 12)
    }

    pub(super) fn decode(raw: u32) -> Self {
        Self { major: raw >> 8 & 0xfff, minor: raw & 0xff | raw >> 12 & 0xfff00 }
    }
}

/// Type of a file, numbered as in a directory entry (the kernel's `FT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FileType {
    /// A regular file.
    Regular = 1,
    /// A directory.
    Directory = 2,
    /// A character device.
    CharDevice = 3,
    /// A block device.
    BlockDevice = 4,
    /// A FIFO.
    Fifo = 5,
    /// A socket.
    Socket = 6,
    /// A symbolic link.
    Symlink = 7,
}

impl FileType {
    const ALL: [Self; 7] = [
        Self::Regular,
        Self::Directory,
        Self::CharDevice,
        Self::BlockDevice,
        Self::Fifo,
        Self::Socket,
        Self::Symlink,
    ];

    /// The type with this number in a directory entry.
    pub(crate) fn from_dirent(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// The type with these `S_IFMT` bits.
    pub(super) fn from_mode(mode: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.mode() == mode & 0o170_000)
    }

    /// Its `S_IFMT` bits.
    #[must_use]
    pub fn mode(self) -> u16 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
            Self::Symlink => 0o120_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_and_too_large_ones_are_refused() {
        for (major, minor) in [(0, 0), (5, 1), (259, 0x12345), (0xfff, 0xf_ffff)] {
            let device = Device { major, minor };
            assert_eq!(device.encode().map(Device::decode), Some(device));
        }
        assert_eq!(Device { major: 1 << 12, minor: 0 }.encode(), None);
        assert_eq!(Device { major: 0, minor: 1 << 20 }.encode(), None);
    }
}
