//! The tar stream: entries one after the other, each with its content to be taken or passed over.
//!
//! A parser of our own because this one reads what strangers made: its memory is bounded whatever
//! the headers say, and what it accepts is what Go's `archive/tar` does, with which the images of
//! the world are made and read. Like that one it takes links, devices, FIFOs and directories to
//! have no content, and leaves global pax headers (comments, in practice) out of account.

mod header;
mod pax;
mod sparse;

use std::io::Read;

use crate::erofs::{Attributes, Device, FileType, Timestamp};

use self::header::{BLOCK, Header};
use self::pax::Extended;
pub(super) use self::sparse::Segment;
use super::LayerError;
use super::error::shown;
use super::stream::Stream;

/// The longest target of a symbolic link, `PATH_MAX` without its NUL.
const LINK_MAX: usize = 4095;

/// How long an entry's extended headers may be together: room for the longest path and for as
/// many attributes as an inode can have.
const MAX_EXTENDED: u64 = 1 << 20;

/// An entry.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its path as it was written.
    pub(super) path: Vec<u8>,
    pub(super) body: Body,
    pub(super) attributes: Attributes,
    /// Names and values.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// A file of this size, of which these pieces are stored.
    File {
        size: u64,
        segments: Vec<Segment>,
    },
    /// Another name of an earlier entry.
    HardLink(Vec<u8>),
    /// A symbolic link.
    Symlink(Vec<u8>),
    Directory,
    /// A device or FIFO.
    Special(FileType, Device),
}

/// A tar stream being read.
pub(super) struct Archive<'p, R: Read> {
    stream: Stream<'p, R>,
    /// Where the present entry's last header begins.
    offset: u64,
    /// Content of the present entry not yet taken.
    remaining: u64,
    /// What follows it up to the next block.
    padding: u64,
}

impl<'p, R: Read> Archive<'p, R> {
    pub(super) fn new(stream: Stream<'p, R>) -> Self {
        Self { stream, offset: 0, remaining: 0, padding: 0 }
    }

    /// The next entry; `None` at the end mark.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut extended = Extended::default();
        let mut room = MAX_EXTENDED;
        loop {
            self.stream.skip(self.remaining)?;
            self.stream.skip(self.padding)?;
            self.set_content(0);
            self.offset = self.stream.position();
            let malformed = malformed(self.offset);
            let mut block = [0; BLOCK];
            self.stream.take_exact(&mut block)?;
            if block == [0; BLOCK] {
                return self.end().map(|()| None);
            }
            let Some(header) = Header::parse(&block) else {
                let tar = self.offset > 0;
                return Err(if tar { malformed("its checksum is wrong") } else { LayerError::NotTar });
            };
            let size = header.size().ok_or_else(|| malformed("its size is no number"))?;
            match header.kind() {
                b'x' => extended.add(&self.extended(size, &mut room)?).map_err(malformed)?,
                b'L' => extended.path = Some(self.long_name(size, &mut room)?),
                b'K' => extended.link = Some(self.long_name(size, &mut room)?),
                b'g' => self.set_content(size),
                _ => return self.entry(&header, extended).map(Some),
            }
        }
    }

    /// Takes some of the present entry's stored content, at most `most` bytes; nothing at its end.
    pub(super) fn content(&mut self, most: u64) -> Result<&[u8], LayerError> {
        let bytes = self.stream.take(most.min(self.remaining))?;
        self.remaining -= bytes.len() as u64;
        Ok(bytes)
    }

    /// Reads what follows the end mark; SHA-256 and length of the whole stream.
    pub(super) fn finish(self) -> Result<([u8; 32], u64), LayerError> {
        self.stream.finish()
    }

    /// The end mark is two blocks of zeros; some writers end the stream after one.
    fn end(&mut self) -> Result<(), LayerError> {
        if self.stream.at_end()? {
            return Ok(());
        }
        let mut block = [0; BLOCK];
        self.stream.take_exact(&mut block)?;
        let whole = block == [0; BLOCK];
        if whole { Ok(()) } else { Err(malformed(self.offset)("its end mark is only one block")) }
    }

    fn set_content(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// The payload of an extended header, of which an entry has no more than `room`.
    fn extended(&mut self, size: u64, room: &mut u64) -> Result<Vec<u8>, LayerError> {
        *room = room
            .checked_sub(size)
            .ok_or_else(|| malformed(self.offset)("its extended headers are larger than 1 MiB"))?;
        self.set_content(size);
        let mut payload = vec![0; usize::try_from(size).expect("at most 1 MiB")];
        self.stream.take_exact(&mut payload)?;
        self.remaining = 0;
        Ok(payload)
    }

    fn long_name(&mut self, size: u64, room: &mut u64) -> Result<Vec<u8>, LayerError> {
        let mut name = self.extended(size, room)?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn entry(&mut self, header: &Header<'_>, mut extended: Extended) -> Result<Entry, LayerError> {
        let malformed = malformed(self.offset);
        let attributes = attributes(header, &extended).map_err(malformed)?;
        let path = extended.sparse.name.take().or(extended.path.take()).unwrap_or_else(|| header.path());
        let link = extended.link.take().unwrap_or_else(|| header.link().to_vec());
        let device = || {
            let numbers = header.device().ok_or_else(|| malformed("its device number is none"));
            numbers.map(|(major, minor)| Device { major, minor })
        };
        let body = match header.kind() {
            // Version 7 had no type for directories.
            b'\0' if path.ends_with(b"/") => Body::Directory,
            b'0' | b'\0' | b'7' | b'S' => self.file(header, &extended)?,
            b'1' => Body::HardLink(link),
            b'2' if link.is_empty() || link.contains(&0) || link.len() > LINK_MAX => {
                return Err(malformed("its symbolic link leads to no path of Linux"));
            }
            b'2' => Body::Symlink(link),
            b'3' => Body::Special(FileType::CharDevice, device()?),
            b'4' => Body::Special(FileType::BlockDevice, device()?),
            b'5' => Body::Directory,
            b'6' => Body::Special(FileType::Fifo, Device::NONE),
            kind => return Err(LayerError::EntryType { path: shown(&path), kind: char::from(kind) }),
        };
        Ok(Entry { path, body, attributes, xattrs: extended.xattrs })
    }

    /// A regular file: where its content goes.
    fn file(&mut self, header: &Header<'_>, extended: &Extended) -> Result<Body, LayerError> {
        let malformed = malformed(self.offset);
        let stored =
            extended.size.or_else(|| header.size()).ok_or_else(|| malformed("its size is no number"))?;
        let (size, segments) = if header.kind() == b'S' {
            let size = header.sparse_size().ok_or_else(|| malformed("its sparse size is no number"))?;
            let map = self.header_map(header)?;
            self.set_content(stored);
            (size, map)
        } else if let Some(size) = extended.sparse.size {
            self.set_content(stored);
            let numbers = &extended.sparse.numbers;
            let before = if extended.sparse.in_content { Some(self.content_map()?) } else { None };
            (size, sparse::pairs(before.as_ref().unwrap_or(numbers)).map_err(malformed)?)
        } else {
            self.set_content(stored);
            (stored, vec![Segment { offset: 0, length: stored }])
        };
        sparse::check(&segments, size, self.remaining).map_err(malformed)?;
        Ok(Body::File { size, segments })
    }

    /// The map in a GNU sparse header and the blocks that may follow it.
    fn header_map(&mut self, header: &Header<'_>) -> Result<Vec<Segment>, LayerError> {
        let malformed = malformed(self.offset);
        let mut map = Vec::new();
        let (pairs, mut more) = header.sparse_pairs();
        sparse::add_pairs(pairs, &mut map).map_err(malformed)?;
        let mut block = [0; BLOCK];
        while more {
            self.stream.take_exact(&mut block)?;
            sparse::add_pairs(&block[..21 * 24], &mut map).map_err(malformed)?;
            more = block[504] != 0;
        }
        Ok(map)
    }

    /// The numbers of the map before the content: decimal lines, padded to a block, of which the
    /// first is how many pairs follow.
    fn content_map(&mut self) -> Result<Vec<u64>, LayerError> {
        let malformed = malformed(self.offset);
        let mut text = sparse::MapText::default();
        let mut block = [0; BLOCK];
        while !text.is_complete() {
            self.remaining = self
                .remaining
                .checked_sub(BLOCK as u64)
                .ok_or_else(|| malformed("a sparse file's map is longer than its content"))?;
            self.stream.take_exact(&mut block)?;
            text.add(&block).map_err(malformed)?;
        }
        Ok(text.numbers)
    }
}

fn malformed(offset: u64) -> impl Fn(&'static str) -> LayerError + Copy {
    move |problem| LayerError::Malformed { offset, problem }
}

fn attributes(header: &Header<'_>, extended: &Extended) -> Result<Attributes, &'static str> {
    let seconds = || header.mtime().map(|seconds| Timestamp { seconds, nanos: 0 });
    Ok(Attributes {
        mode: header.mode().ok_or("its mode is no number")?,
        uid: extended.uid.or_else(|| header.uid()).ok_or("its owner is no number of 32 bits")?,
        gid: extended.gid.or_else(|| header.gid()).ok_or("its group is no number of 32 bits")?,
        mtime: extended.mtime.or_else(seconds).ok_or("its time is no number")?,
    })
}
