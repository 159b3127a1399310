//! The extended inode on disk, `struct erofs_inode_extended`.

use super::attributes::{Attributes, Device, FileType, Nid, Timestamp};
use super::xattr;

/// Size of an inode on disk, without its xattrs.
pub(super) const SIZE: usize = 64;

/// Offset of the link count in it.
pub(super) const LINKS_OFFSET: u64 = 44;

const EXTENDED: u16 = 1;
const PLAIN: u16 = 0;
const INLINE: u16 = 2;

/// Where a file's content lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// In blocks of its own, from this one on.
    Plain(u32),
    /// Behind the inode and its xattrs, in the same block.
    Inline,
    /// There is none, but a device's number.
    Device(u32),
}

/// An inode: what `stat` tells of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub nid: Nid,
    /// Type.
    pub kind: FileType,
    /// Mode, owner, time.
    pub attributes: Attributes,
    /// Length of the content: of a symbolic link its target, of a directory its entries as stored.
    pub size: u64,
    /// How many names it has.
    pub links: u32,
    pub(super) layout: Layout,
    /// The on-disk `i_xattr_icount`.
    pub(super) xattr_count: u16,
}

impl Inode {
    /// The device's number, of a device.
    #[must_use]
    pub fn device(&self) -> Option<Device> {
        match (self.kind, self.layout) {
            (FileType::CharDevice | FileType::BlockDevice, Layout::Device(raw)) => Some(Device::decode(raw)),
            _ => None,
        }
    }

    /// Whether overlayfs takes it for a whiteout: something that hides a name of a lower layer.
    #[must_use]
    pub fn is_whiteout(&self) -> bool {
        self.kind == FileType::CharDevice && self.device() == Some(Device::NONE)
    }

    /// Bytes of the inode and its xattrs on disk.
    pub(super) fn stored_size(&self) -> usize {
        SIZE + xattr::stored_size(self.xattr_count)
    }

    pub(super) fn encode(&self) -> [u8; SIZE] {
        let (format, payload) = match self.layout {
            Layout::Plain(block) => (PLAIN, block),
            Layout::Inline => (INLINE, 0),
            Layout::Device(number) => (PLAIN, number),
        };
        let mut raw = [0; SIZE];
        let mut put = |offset: usize, bytes: &[u8]| raw[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, &(EXTENDED | format << 1).to_le_bytes());
        put(2, &self.xattr_count.to_le_bytes());
        put(4, &(self.kind.mode() | self.attributes.mode & 0o7777).to_le_bytes());
        put(8, &self.size.to_le_bytes());
        put(16, &payload.to_le_bytes());
        // The number that 32-bit programs see; ours is unique while images are below 128 GiB.
        put(20, &self.nid.0.to_le_bytes()[..4]);
        put(24, &self.attributes.uid.to_le_bytes());
        put(28, &self.attributes.gid.to_le_bytes());
        put(32, &self.attributes.mtime.seconds.to_le_bytes());
        put(40, &self.attributes.mtime.nanos.to_le_bytes());
        put(44, &self.links.to_le_bytes());
        raw
    }

    /// The inode in `raw`; `None` if it is none of ours.
    pub(super) fn decode(nid: Nid, raw: &[u8; SIZE]) -> Option<Self> {
        let format = u16_at(raw, 0);
        let mode = u16_at(raw, 4);
        let kind = FileType::from_mode(mode)?;
        let has_content = matches!(kind, FileType::Regular | FileType::Directory | FileType::Symlink);
        let layout = match (format >> 1, has_content) {
            (PLAIN, true) => Layout::Plain(u32_at(raw, 16)),
            (INLINE, true) => Layout::Inline,
            (PLAIN, false) => Layout::Device(u32_at(raw, 16)),
            _ => return None,
        };
        let size = u64_at(raw, 8);
        let mtime = Timestamp { seconds: u64_at(raw, 32).cast_signed(), nanos: u32_at(raw, 40) };
        let sound = format & 1 == EXTENDED
            && mtime.nanos < 1_000_000_000
            && size <= i64::MAX as u64
            && (has_content || size == 0);
        sound.then_some(Self {
            nid,
            kind,
            attributes: Attributes { mode: mode & 0o7777, uid: u32_at(raw, 24), gid: u32_at(raw, 28), mtime },
            size,
            links: u32_at(raw, 44),
            layout,
            xattr_count: u16_at(raw, 2),
        })
    }
}

fn u16_at(raw: &[u8; SIZE], offset: usize) -> u16 {
    u16::from_le_bytes([raw[offset], raw[offset + 1]])
}

fn u32_at(raw: &[u8; SIZE], offset: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| raw[offset + i]))
}

fn u64_at(raw: &[u8; SIZE], offset: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| raw[offset + i]))
}
