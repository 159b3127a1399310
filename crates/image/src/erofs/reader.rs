//! The reader: metadata and content of an image that [`Writer`](super::Writer) wrote.
//!
//! A cached image may have been damaged since. Every number read from it is checked before it is
//! used, and what the writer never writes is refused.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use api::{Explain, Kind};
use thiserror::Error;

use super::attributes::{FileType, Nid};
use super::directory::{self, Entry};
use super::inode::{self, Inode, Layout};
use super::superblock::Superblock;
use super::xattr::Xattrs;
use super::{BLOCK, ROOT, SLOT};

/// Longest target of a symbolic link: `PATH_MAX` without its NUL.
const LINK_MAX: u64 = 4095;

/// Why an image cannot be read.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The file failed.
    #[error("the image cannot be read")]
    Io(#[from] io::Error),
    /// Not an image of ours, or one whose first block is damaged.
    #[error("this is no EROFS image of ours, or its first block is damaged")]
    Superblock,
    /// The file is not as long as its superblock says.
    #[error("the image is {found} bytes long and should be {expected}")]
    Length {
        /// Length by the superblock.
        expected: u64,
        /// Length of the file.
        found: u64,
    },
    /// An inode makes no sense.
    #[error("inode {} of the image is damaged", .0.0)]
    Inode(Nid),
    /// A directory's entries make no sense.
    #[error("the directory of inode {} of the image is damaged", .0.0)]
    Directory(Nid),
}

impl Explain for ImageError {
    fn kind(&self) -> Kind {
        match self {
            Self::Io(error) => api::error::io_kind(error),
            _ => Kind::Corrupt,
        }
    }

    fn hint(&self) -> Option<String> {
        Some("remove the image and pull or import it again".to_owned())
    }
}

/// An image open for reading.
#[derive(Debug)]
pub struct Image<'f> {
    file: &'f File,
    length: u64,
    uuid: [u8; 16],
}

impl<'f> Image<'f> {
    /// Opens the image in `file`: checks its superblock, checksum and length.
    ///
    /// # Errors
    /// The file fails or is no sound image.
    pub fn open(file: &'f File) -> Result<Self, ImageError> {
        let found = file.metadata()?.len();
        let mut block = [0; BLOCK];
        if found < BLOCK as u64 {
            return Err(ImageError::Superblock);
        }
        file.read_exact_at(&mut block, 0)?;
        let superblock = Superblock::load(&block).ok_or(ImageError::Superblock)?;
        let expected = u64::from(superblock.blocks) * BLOCK as u64;
        if expected != found {
            return Err(ImageError::Length { expected, found });
        }
        Ok(Self { file, length: found, uuid: superblock.uuid })
    }

    /// The identifier that it was written with.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// The root directory.
    ///
    /// # Errors
    /// The file fails; it is damaged.
    pub fn root(&self) -> Result<Inode, ImageError> {
        self.inode(ROOT).and_then(|inode| match inode.kind {
            FileType::Directory => Ok(inode),
            _ => Err(ImageError::Inode(ROOT)),
        })
    }

    /// The inode of this number.
    ///
    /// # Errors
    /// The file fails; it is damaged.
    pub fn inode(&self, nid: Nid) -> Result<Inode, ImageError> {
        let damaged = ImageError::Inode(nid);
        let offset = nid.0.checked_mul(SLOT).filter(|offset| self.contains(*offset, inode::SIZE as u64));
        let Some(offset) = offset else { return Err(damaged) };
        let mut raw = [0; inode::SIZE];
        self.file.read_exact_at(&mut raw, offset)?;
        let inode = Inode::decode(nid, &raw).ok_or(ImageError::Inode(nid))?;
        let stored = inode.stored_size() as u64;
        let content = match inode.layout {
            Layout::Device(_) => 0,
            // So that a small content's position, below, cannot lie.
            Layout::Inline if offset % BLOCK as u64 + stored + inode.size > BLOCK as u64 => {
                return Err(damaged);
            }
            Layout::Inline | Layout::Plain(_) => inode.size,
        };
        let sound = self.contains(offset, stored)
            && self.contains(content_position(&inode), content)
            && (inode.kind != FileType::Symlink || (1..=LINK_MAX).contains(&inode.size));
        if sound { Ok(inode) } else { Err(damaged) }
    }

    /// The extended attributes of an inode.
    ///
    /// # Errors
    /// The file fails; they are damaged.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs, ImageError> {
        let mut body = vec![0; inode.stored_size() - inode::SIZE];
        self.file.read_exact_at(&mut body, inode.nid.0 * SLOT + inode::SIZE as u64)?;
        Xattrs::load(&body).ok_or(ImageError::Inode(inode.nid))
    }

    /// Reads content at `offset` of a file; how much was read, less than asked for only at its end.
    ///
    /// # Errors
    /// The file fails.
    pub fn read_at(&self, inode: &Inode, buffer: &mut [u8], offset: u64) -> Result<usize, ImageError> {
        let left = inode.size.saturating_sub(offset).min(buffer.len() as u64);
        let count = usize::try_from(left).expect("at most the buffer's length");
        if count > 0 {
            self.file.read_exact_at(&mut buffer[..count], content_position(inode) + offset)?;
        }
        Ok(count)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// The file fails; it is none.
    pub fn link_target(&self, inode: &Inode) -> Result<Vec<u8>, ImageError> {
        if inode.kind != FileType::Symlink {
            return Err(ImageError::Inode(inode.nid));
        }
        let mut target = vec![0; usize::try_from(inode.size).expect("checked with the inode")];
        self.read_at(inode, &mut target, 0)?;
        Ok(target)
    }

    /// Hands `visit` the entries of a directory one by one, sorted, without its dots, until it
    /// has seen enough.
    ///
    /// # Errors
    /// The file fails; it is none, or damaged.
    pub fn entries(
        &self,
        directory: &Inode,
        mut visit: impl FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> Result<(), ImageError> {
        let damaged = || ImageError::Directory(directory.nid);
        if directory.kind != FileType::Directory {
            return Err(damaged());
        }
        let mut block = [0; BLOCK];
        let mut last = Vec::new();
        let mut offset = 0;
        while offset < directory.size {
            let count = self.read_at(directory, &mut block, offset)?;
            for entry in directory::load(&block[..count]).ok_or_else(damaged)? {
                if entry.name <= last.as_slice() {
                    return Err(damaged());
                }
                last.clear();
                last.extend(entry.name);
                if entry.name != b"." && entry.name != b".." && visit(entry).is_break() {
                    return Ok(());
                }
            }
            offset += count as u64;
        }
        Ok(())
    }

    fn contains(&self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.length)
    }
}

fn content_position(inode: &Inode) -> u64 {
    match inode.layout {
        Layout::Plain(block) => u64::from(block) * BLOCK as u64,
        Layout::Inline => inode.nid.0 * SLOT + inode.stored_size() as u64,
        Layout::Device(_) => 0,
    }
}
