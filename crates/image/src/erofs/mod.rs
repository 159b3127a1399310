//! EROFS, the read-only file system of Linux: a streaming writer, and a reader of what it wrote.
//!
//! The format is that of the kernel's `fs/erofs/erofs_fs.h`, uncompressed, with blocks of 4 KiB:
//! what every kernel since 5.4 mounts. The writer's own choices within it:
//!
//! * Block 0 holds the superblock, written last so that an unfinished image is none, and the
//!   root's inode, since the superblock has 16 bits for its number.
//! * Everything else is written in the order it becomes known. The inode of a file needs only the
//!   *size* of the content that follows, so it goes out at once, in chunks of blocks between the
//!   blocks of data, and costs no memory. Directories come when their entries are known.
//! * Inodes are the extended ones: the compact ones have no time of their own.
//! * Content of at most 2 KiB lies in the block of its inode, other content in blocks of its own
//!   that can be mapped and read ahead.

mod attributes;
mod directory;
mod inode;
mod reader;
mod superblock;
mod writer;
mod xattr;

pub use attributes::{Attributes, Device, FileType, Nid, Timestamp};
pub use directory::Entry;
pub(crate) use directory::NAME_MAX;
pub use inode::Inode;
pub use reader::{Image, ImageError};
pub use writer::{Content, Directory, Node, WriteError, Writer};
pub use xattr::{XattrError, Xattrs};

/// Size of a block.
pub(crate) const BLOCK: usize = 4096;

/// Inodes are numbered by their offset in the image in units of this.
const SLOT: u64 = 32;

/// The root's inode number: the first slot behind the superblock.
const ROOT: Nid = Nid(36);

/// Content of at most this size lies in the block of its inode.
const INLINE_MAX: u64 = 2048;

/// An identifier for an image made of what has this SHA-256: a UUID of version 8.
pub(crate) fn uuid(digest: &[u8; 32]) -> [u8; 16] {
    let mut uuid = std::array::from_fn(|i| digest[i]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}
