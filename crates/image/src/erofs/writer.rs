//! The writer: files go out as they come, directories once their entries are known, the
//! superblock last.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use thiserror::Error;

use super::attributes::{Attributes, Device, FileType, Nid};
use super::directory::{self, Entry};
use super::inode::{Inode, LINKS_OFFSET, Layout};
use super::superblock::{self, Superblock};
use super::xattr::{self, Xattrs};
use super::{BLOCK, INLINE_MAX, ROOT, SLOT};

/// Blocks that are set aside at once for inodes.
const CHUNK_BLOCKS: usize = 16;

/// How much content is gathered before it is written.
const PENDING: usize = 256 * 1024;

/// Why an image cannot be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The file failed.
    #[error("the image cannot be written")]
    Io(#[from] io::Error),
    /// The image would be larger than was allowed.
    #[error("the image would be larger than {limit} bytes")]
    TooLarge {
        /// What was allowed.
        limit: u64,
    },
    /// The root's inode has to fit into the first block.
    #[error("the root directory's extended attributes are larger than the image's first block has room for")]
    RootXattrs,
    /// Linux has no such device number.
    #[error("device number {}:{} does not exist on Linux", .0.major, .0.minor)]
    Device(Device),
}

/// What every file has.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    /// Mode, owner, time.
    pub attributes: Attributes,
    /// Extended attributes.
    pub xattrs: &'a Xattrs,
}

/// The content of a file being written; must be given all the bytes announced for it.
#[derive(Debug)]
pub struct Content {
    nid: Nid,
    position: u64,
    remaining: u64,
}

impl Content {
    /// Its inode.
    #[must_use]
    pub fn nid(&self) -> Nid {
        self.nid
    }
}

/// A directory that has its place, but not yet its entries.
#[derive(Debug, Clone, Copy)]
pub struct Directory {
    /// Its inode.
    pub nid: Nid,
    position: u64,
}

/// Writes an image.
#[derive(Debug)]
pub struct Writer<'f> {
    file: &'f File,
    limit: u64,
    next_block: u64,
    inodes: u64,
    /// Block 0, kept to the end.
    head: Vec<u8>,
    /// The chunk of blocks that inodes go to now.
    chunk: Chunk,
    /// Content not yet written, contiguous.
    pending: Vec<u8>,
    pending_offset: u64,
}

#[derive(Debug, Default)]
struct Chunk {
    offset: u64,
    capacity: usize,
    bytes: Vec<u8>,
}

impl<'f> Writer<'f> {
    /// A writer of an image of at most `limit` bytes that replaces what is in `file`.
    ///
    /// # Errors
    /// The file fails.
    pub fn new(file: &'f File, limit: u64) -> Result<Self, WriteError> {
        file.set_len(0)?;
        Ok(Self {
            file,
            limit: limit.min(u64::from(u32::MAX) * BLOCK as u64),
            next_block: 1,
            inodes: 0,
            head: vec![0; BLOCK],
            chunk: Chunk::default(),
            pending: Vec::with_capacity(PENDING),
            pending_offset: 0,
        })
    }

    /// Begins a regular file of `size` bytes.
    ///
    /// # Errors
    /// The file fails, or gets too large.
    pub fn file(&mut self, node: Node<'_>, size: u64) -> Result<Content, WriteError> {
        self.content(node, FileType::Regular, 1, size)
    }

    /// Writes a symbolic link.
    ///
    /// # Errors
    /// The file fails, or gets too large.
    pub fn symlink(&mut self, node: Node<'_>, target: &[u8]) -> Result<Nid, WriteError> {
        let mut content = self.content(node, FileType::Symlink, 1, target.len() as u64)?;
        self.append(&mut content, target)?;
        Ok(content.nid)
    }

    /// Writes a device, FIFO or socket: a file without content. `device` is only of devices.
    ///
    /// # Errors
    /// The file fails, or gets too large; a device number that Linux has not.
    pub fn special(&mut self, node: Node<'_>, kind: FileType, device: Device) -> Result<Nid, WriteError> {
        let number = device.encode().ok_or(WriteError::Device(device))?;
        let offset = self.allocate(inode_size(node))?;
        self.put_inode(offset, node, kind, 1, 0, Layout::Device(number))
    }

    /// Appends to a file's content.
    ///
    /// # Errors
    /// The file fails.
    ///
    /// # Panics
    /// If that is more than was announced.
    pub fn append(&mut self, content: &mut Content, bytes: &[u8]) -> Result<(), WriteError> {
        content.advance(bytes.len() as u64, |position| self.put(position, bytes))
    }

    /// Leaves a hole of `length` bytes, read as zeros, in a file's content.
    ///
    /// # Errors
    /// The file fails.
    ///
    /// # Panics
    /// If that is more than was announced.
    pub fn skip(&mut self, content: &mut Content, length: u64) -> Result<(), WriteError> {
        content.advance(length, |_| Ok(()))
    }

    /// Makes place for the root directory; see [`directory`](Self::directory).
    ///
    /// # Errors
    /// The file fails, or gets too large; the root's attributes are too large.
    pub fn root<'a>(
        &mut self,
        node: Node<'_>,
        links: u32,
        names: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Directory, WriteError> {
        if superblock::END + inode_size(node) > BLOCK {
            return Err(WriteError::RootXattrs);
        }
        let size = directory_size(names);
        let position = self.allocate_blocks(size)?;
        let layout = plain(position);
        let nid = self.put_inode(ROOT.0 * SLOT, node, FileType::Directory, links, size, layout)?;
        Ok(Directory { nid, position })
    }

    /// Makes place for a directory with `links` links and children of these names, sorted as
    /// bytes; [`fill`](Self::fill) must follow.
    ///
    /// # Errors
    /// The file fails, or gets too large.
    pub fn directory<'a>(
        &mut self,
        node: Node<'_>,
        links: u32,
        names: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Directory, WriteError> {
        let content = self.content(node, FileType::Directory, links, directory_size(names))?;
        Ok(Directory { nid: content.nid, position: content.position })
    }

    /// Writes the entries of a directory: those whose names it was made for.
    ///
    /// # Errors
    /// The file fails.
    pub fn fill<'a>(
        &mut self,
        place: Directory,
        parent: Nid,
        children: impl Iterator<Item = Entry<'a>>,
    ) -> Result<(), WriteError> {
        let mut position = place.position;
        directory::store(directory::with_dots(children, place.nid, parent), |block| {
            self.put(position, block)?;
            position += block.len() as u64;
            Ok(())
        })
    }

    /// Sets how many names an inode has, where that is not one.
    ///
    /// # Errors
    /// The file fails.
    pub fn set_links(&mut self, nid: Nid, links: u32) -> Result<(), WriteError> {
        self.put(nid.0 * SLOT + LINKS_OFFSET, &links.to_le_bytes())
    }

    /// Writes what is left, the superblock last; the image's length.
    ///
    /// # Errors
    /// The file fails.
    pub fn finish(mut self, uuid: [u8; 16]) -> Result<u64, WriteError> {
        self.write_pending()?;
        self.write_chunk()?;
        let length = self.end();
        self.file.set_len(length)?;
        let blocks = u32::try_from(self.next_block).expect("the limit is below 2³² blocks");
        let head = self.head.first_chunk_mut().expect("it is a block long");
        Superblock { inodes: self.inodes, blocks, uuid }.store(head);
        self.file.write_all_at(head, 0)?;
        Ok(length)
    }

    /// Makes an inode and room for its content: in its own block, if it is small.
    fn content(
        &mut self,
        node: Node<'_>,
        kind: FileType,
        links: u32,
        size: u64,
    ) -> Result<Content, WriteError> {
        let own = inode_size(node);
        let inline = usize::try_from(size)
            .ok()
            .filter(|length| (1..=INLINE_MAX).contains(&size) && own + length <= BLOCK);
        let (offset, position, layout) = if let Some(length) = inline {
            let offset = self.allocate(own + length)?;
            (offset, offset + own as u64, Layout::Inline)
        } else {
            let offset = self.allocate(own)?;
            let position = self.allocate_blocks(size)?;
            (offset, position, plain(position))
        };
        let nid = self.put_inode(offset, node, kind, links, size, layout)?;
        Ok(Content { nid, position, remaining: size })
    }

    fn put_inode(
        &mut self,
        offset: u64,
        node: Node<'_>,
        kind: FileType,
        links: u32,
        size: u64,
        layout: Layout,
    ) -> Result<Nid, WriteError> {
        let nid = Nid(offset / SLOT);
        let xattr_count = node.xattrs.count();
        let inode = Inode { nid, kind, attributes: node.attributes, size, links, layout, xattr_count };
        let mut record = inode.encode().to_vec();
        node.xattrs.store(&mut record);
        self.put(offset, &record)?;
        self.inodes += 1;
        Ok(nid)
    }

    /// Room for an inode and what belongs to it. The kernel wants small content in one block; so
    /// nothing crosses blocks that need not.
    fn allocate(&mut self, length: usize) -> Result<u64, WriteError> {
        let mut at = self.chunk.bytes.len().next_multiple_of(SLOT as usize);
        if at % BLOCK + length > BLOCK {
            at = at.next_multiple_of(BLOCK);
        }
        if at + length > self.chunk.capacity {
            self.write_chunk()?;
            let capacity = length.next_multiple_of(BLOCK).max(CHUNK_BLOCKS * BLOCK);
            self.chunk.offset = self.allocate_blocks(capacity as u64)?;
            self.chunk.capacity = capacity;
            self.chunk.bytes.clear();
            at = 0;
        }
        self.chunk.bytes.resize(at + length, 0);
        Ok(self.chunk.offset + at as u64)
    }

    /// Length of the image so far.
    fn end(&self) -> u64 {
        self.next_block * BLOCK as u64
    }

    /// Room of `length` bytes in whole blocks.
    fn allocate_blocks(&mut self, length: u64) -> Result<u64, WriteError> {
        let offset = self.end();
        let next = self.next_block.saturating_add(length.div_ceil(BLOCK as u64));
        if next > self.limit / BLOCK as u64 {
            return Err(WriteError::TooLarge { limit: self.limit });
        }
        self.next_block = next;
        Ok(offset)
    }

    /// Puts bytes where they belong: into block 0, the present chunk, or the file.
    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        if offset < BLOCK as u64 {
            overwrite(&mut self.head, offset, bytes);
        } else if offset >= self.chunk.offset && offset - self.chunk.offset < self.chunk.capacity as u64 {
            overwrite(&mut self.chunk.bytes, offset - self.chunk.offset, bytes);
        } else {
            self.put_pending(offset, bytes)?;
        }
        Ok(())
    }

    fn put_pending(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let contiguous = self.pending_offset + self.pending.len() as u64 == offset;
        if !contiguous || self.pending.len() + bytes.len() > PENDING {
            self.write_pending()?;
            self.pending_offset = offset;
        }
        if bytes.len() >= PENDING {
            self.file.write_all_at(bytes, offset)?;
            self.pending_offset = offset + bytes.len() as u64;
        } else {
            self.pending.extend(bytes);
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), WriteError> {
        // New blocks of the file read as zeros already: runs of zeros cost no disk.
        let zeros = self.pending.iter().all(|byte| *byte == 0);
        if !zeros {
            self.file.write_all_at(&self.pending, self.pending_offset)?;
        }
        self.pending.clear();
        Ok(())
    }

    fn write_chunk(&self) -> Result<(), WriteError> {
        Ok(self.file.write_all_at(&self.chunk.bytes, self.chunk.offset)?)
    }
}

impl Content {
    fn advance(
        &mut self,
        length: u64,
        put: impl FnOnce(u64) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        self.remaining = self.remaining.checked_sub(length).expect("no more content than announced");
        put(self.position)?;
        self.position += length;
        Ok(())
    }
}

fn inode_size(node: Node<'_>) -> usize {
    super::inode::SIZE + xattr::stored_size(node.xattrs.count())
}

fn plain(position: u64) -> Layout {
    Layout::Plain(u32::try_from(position / BLOCK as u64).expect("the limit is below 2³² blocks"))
}

fn directory_size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let entries = names.map(|name| Entry { name, nid: ROOT, kind: FileType::Directory });
    directory::stored_size(directory::with_dots(entries, ROOT, ROOT).map(|entry| entry.name))
}

fn overwrite(target: &mut [u8], offset: u64, bytes: &[u8]) {
    let start = usize::try_from(offset).expect("offsets within a buffer are small");
    target[start..start + bytes.len()].copy_from_slice(bytes);
}
