//! Looking up in a tar: where each of its files is. Names lead only to other entries of the same
//! tar, never to the host. Nothing is extracted, memory is bounded.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use api::{Explain, Kind};
use tar::{EntryType, Header, PaxExtensions};
use thiserror::Error;

use super::{Content, Files, ImportError};

const BLOCK: u64 = 512;

/// The most entries of an archive of images: 250 layers make about 800.
const MAX_MEMBERS: usize = 100_000;

/// The most bytes of all their names and link targets, which are kept in memory: each can be as long
/// as an extended header.
const MAX_NAMES: usize = 16 << 20;

/// The most bytes of one extended header.
const MAX_EXTENDED: u64 = 1 << 20;

/// The most links followed to find a file.
const MAX_LINKS: u32 = 8;

/// What can be wrong with the structure of an archive.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// It cannot be read.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// It ends before its time.
    #[error("the archive is cut short")]
    Truncated,
    /// A header that makes no sense.
    #[error("the archive's tar header at byte {0} is malformed")]
    Malformed(u64),
    /// More entries than an archive of images has.
    #[error("the archive has more than {MAX_MEMBERS} entries")]
    TooMany,
    /// Longer names than an archive of images has.
    #[error("the names and links in the archive are longer than {} MiB together", MAX_NAMES >> 20)]
    LongNames,
    /// Links that lead nowhere, or round in a circle.
    #[error("{0:?} in the archive is a link that leads to no file")]
    Link(String),
}

impl Explain for ArchiveError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read(error) => api::error::io_kind(error),
            Self::TooMany | Self::LongNames => Kind::LimitExceeded,
            Self::Truncated | Self::Malformed(_) | Self::Link(_) => Kind::Corrupt,
        }
    }
}

/// Bytes that can be read anywhere.
pub(super) trait Bytes {
    /// Fills the buffer from an offset.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Bytes for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

impl Bytes for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok().filter(|start| *start <= self.len());
        let mut rest = start.map_or(&[][..], |start| &self[start..]);
        rest.read_exact(buffer)
    }
}

/// An entry of a tar.
pub(super) struct Member {
    /// As written.
    pub(super) name: Vec<u8>,
    place: Place,
}

/// What a name leads to.
enum Place {
    File {
        offset: u64,
        length: u64,
    },
    /// Another name, relative to this one's folder.
    Symlink(Vec<u8>),
    /// Another name.
    HardLink(Vec<u8>),
    Nowhere,
}

impl Place {
    /// The other name, of a link.
    fn target(&self) -> Option<&[u8]> {
        match self {
            Self::Symlink(target) | Self::HardLink(target) => Some(target),
            Self::File { .. } | Self::Nowhere => None,
        }
    }
}

/// The entries of a tar, one after the other, their content passed over.
pub(super) struct Members<'a, B: Bytes + ?Sized> {
    bytes: &'a B,
    position: u64,
}

/// What extended headers say of the entry after them.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    length: Option<u64>,
}

impl<'a, B: Bytes + ?Sized> Members<'a, B> {
    pub(super) fn of(bytes: &'a B) -> Self {
        Self { bytes, position: 0 }
    }

    /// The next entry; `None` at the end mark.
    pub(super) fn next(&mut self) -> Result<Option<Member>, ArchiveError> {
        let mut extended = Extended::default();
        loop {
            let at = self.position;
            let malformed = || ArchiveError::Malformed(at);
            let mut header = Header::new_old();
            self.read(header.as_mut_bytes(), at)?;
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            if header.cksum().ok() != Some(checksum(header.as_bytes())) {
                return Err(malformed());
            }
            let declared = header.entry_size().map_err(|_| malformed())?;
            let kind = header.entry_type();
            let is_extension = kind.is_gnu_longname()
                || kind.is_gnu_longlink()
                || kind.is_pax_local_extensions()
                || kind.is_pax_global_extensions();
            let length = extended.length.take().filter(|_| !is_extension).unwrap_or(declared);
            let offset = at + BLOCK;
            let end = length.checked_next_multiple_of(BLOCK).and_then(|padded| offset.checked_add(padded));
            self.position = end.ok_or_else(malformed)?;
            if is_extension {
                extended.read(kind, &self.extension(offset, length)?);
                continue;
            }
            let name = extended.name.unwrap_or_else(|| header.path_bytes().into_owned());
            let link = || {
                let short = || header.link_name_bytes().map(std::borrow::Cow::into_owned);
                extended.link.or_else(short).unwrap_or_default()
            };
            let place = match kind {
                EntryType::Regular | EntryType::Continuous => Place::File { offset, length },
                EntryType::Symlink => Place::Symlink(link()),
                EntryType::Link => Place::HardLink(link()),
                _ => Place::Nowhere,
            };
            return Ok(Some(Member { name, place }));
        }
    }

    fn extension(&self, offset: u64, length: u64) -> Result<Vec<u8>, ArchiveError> {
        let length = Some(length).filter(|it| *it <= MAX_EXTENDED).and_then(|it| usize::try_from(it).ok());
        let mut bytes = vec![0; length.ok_or(ArchiveError::Malformed(offset))?];
        self.read(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), ArchiveError> {
        self.bytes.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ArchiveError::Truncated,
            _ => ArchiveError::Read(error),
        })
    }
}

impl Extended {
    fn read(&mut self, kind: EntryType, bytes: &[u8]) {
        let text = || bytes.strip_suffix(b"\0").unwrap_or(bytes).to_vec();
        if kind.is_gnu_longname() {
            self.name = Some(text());
        } else if kind.is_gnu_longlink() {
            self.link = Some(text());
        } else if kind.is_pax_local_extensions() {
            for record in PaxExtensions::new(bytes).map_while(Result::ok) {
                match record.key_bytes() {
                    b"path" => self.name = Some(record.value_bytes().to_vec()),
                    b"linkpath" => self.link = Some(record.value_bytes().to_vec()),
                    b"size" => self.length = record.value().ok().and_then(|size| size.parse().ok()),
                    _ => {}
                }
            }
        }
    }
}

/// The sum that a header must state, with its own field taken as spaces (POSIX.1 pax, "ustar").
fn checksum(header: &[u8; BLOCK as usize]) -> u32 {
    let field = 148..156;
    let byte = |(index, byte): (usize, &u8)| if field.contains(&index) { b' ' } else { *byte };
    header.iter().enumerate().map(|entry| u32::from(byte(entry))).sum()
}

/// A tar in a file, indexed.
pub(super) struct Archive<'a> {
    file: &'a File,
    length: u64,
    places: HashMap<String, Place>,
}

impl<'a> Archive<'a> {
    /// Finds all entries. Of several with the same name the last one counts.
    pub(super) fn index(file: &'a File) -> Result<Self, ArchiveError> {
        let length = file.metadata().map_err(ArchiveError::Read)?.len();
        let mut places = HashMap::new();
        let mut room = MAX_NAMES;
        let mut members = Members::of(file);
        while let Some(Member { name, place }) = members.next()? {
            if let Place::File { offset, length: stored } = place
                && offset.checked_add(stored).is_none_or(|end| end > length)
            {
                return Err(ArchiveError::Truncated);
            }
            if places.len() == MAX_MEMBERS {
                return Err(ArchiveError::TooMany);
            }
            // What has no name that an image could refer to is left out.
            if let Some(name) = std::str::from_utf8(&name).ok().and_then(|name| resolve("", name)) {
                let kept = name.len() + place.target().map_or(0, <[u8]>::len);
                room = room.checked_sub(kept).ok_or(ArchiveError::LongNames)?;
                places.insert(name, place);
            }
        }
        Ok(Self { file, length, places })
    }

    /// Whether there is an entry of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Bytes of the whole tar.
    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

impl Files for Archive<'_> {
    fn open(&self, path: &str) -> Result<Option<Content<'_>>, ImportError> {
        let dangling = || ArchiveError::Link(path.to_owned());
        let Some(mut name) = resolve("", path) else { return Ok(None) };
        for _ in 0..=MAX_LINKS {
            let (folder, target) = match self.places.get(&name) {
                Some(Place::File { offset, length }) => {
                    let section = Section { file: self.file, offset: *offset, remaining: *length };
                    return Ok(Some(Content { bytes: Box::new(section), length: *length }));
                }
                Some(Place::Symlink(target)) => {
                    (name.rsplit_once('/').map_or("", |(folder, _)| folder), target)
                }
                Some(Place::HardLink(target)) => ("", target),
                Some(Place::Nowhere) | None => return Ok(None),
            };
            let target = std::str::from_utf8(target).ok();
            name = target.and_then(|target| resolve(folder, target)).ok_or_else(dangling)?;
        }
        Err(dangling().into())
    }
}

/// A path within the archive: `path`, which may be relative to `folder`, without `.` and `..`;
/// `None` if it leads out.
fn resolve(folder: &str, path: &str) -> Option<String> {
    let start = if path.starts_with('/') { "" } else { folder };
    let mut parts: Vec<&str> = Vec::new();
    for part in start.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A part of a file, read without moving the file's own position.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    remaining: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.remaining).map_or(buffer.len(), |most| most.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        self.remaining -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
