//! Block 0: the superblock, `struct erofs_super_block` at offset 1024, and its checksum.

use super::{BLOCK, ROOT};

/// Offset of the superblock in the image.
pub(super) const OFFSET: usize = 1024;

/// Where the root's inode begins: behind the superblock's 128 bytes.
pub(super) const END: usize = OFFSET + 128;

const MAGIC: u32 = 0xE0F5_E1E2;
const BLOCK_BITS: u8 = 12;
const COMPAT_CHECKSUM: u32 = 1;
const COMPAT_MTIME: u32 = 2;

/// What is particular to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Inodes in use.
    pub(super) inodes: u64,
    /// Length of the image in blocks.
    pub(super) blocks: u32,
    pub(super) uuid: [u8; 16],
}

impl Superblock {
    /// Writes it into block 0, which must be complete but for it: the checksum covers the block.
    pub(super) fn store(&self, block: &mut [u8; BLOCK]) {
        let mut put = |offset: usize, bytes: &[u8]| {
            block[OFFSET + offset..OFFSET + offset + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &MAGIC.to_le_bytes());
        put(8, &(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        put(12, &[BLOCK_BITS]);
        put(14, &ROOT.0.to_le_bytes()[..2]);
        put(16, &self.inodes.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(48, &self.uuid);
        let checksum = checksum(block);
        block[OFFSET + 4..OFFSET + 8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The superblock of a block 0 that is exactly as [`store`](Self::store) leaves one, else
    /// `None`: features that we never set are damage, or another writer's.
    pub(super) fn load(block: &[u8; BLOCK]) -> Option<Self> {
        let field = |offset: usize| &block[OFFSET + offset..];
        let (inodes, _) = field(16).split_first_chunk()?;
        let (blocks, _) = field(36).split_first_chunk()?;
        let (uuid, _) = field(48).split_first_chunk()?;
        let found =
            Self { inodes: u64::from_le_bytes(*inodes), blocks: u32::from_le_bytes(*blocks), uuid: *uuid };
        let mut expected = *block;
        expected[OFFSET..END].fill(0);
        found.store(&mut expected);
        (expected == *block).then_some(found)
    }
}

/// CRC-32C of the block from the superblock on, its own checksum taken as zero; the kernel's
/// `erofs_superblock_csum_verify`, which leaves out the final inversion.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let covered = crc32c::crc32c(&block[OFFSET..OFFSET + 4]);
    let covered = crc32c::crc32c_append(covered, &[0; 4]);
    !crc32c::crc32c_append(covered, &block[OFFSET + 8..])
}
