//! What comes in: decompressed, and sorted by its first entry into what streams and what must be
//! looked up in.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::archive::Members;
use super::{ImportError, Input};
use crate::import::layout::Folder;
use crate::layer::Limits;
use crate::progress::{Event, Progress};
use crate::store::{Cancel, Store};

/// So much of a tar is looked at for its first entry's name.
const HEAD: u64 = 64 << 10;

/// Bytes copied at a time when an archive is kept.
const COPY: usize = 1 << 20;

/// The largest zstd window, as a power of two; the most that `zstd` itself takes unasked.
const ZSTD_WINDOW_LOG: u32 = 27;

/// First entries of archives of images: files and folders of OCI layouts and of `docker save`.
const ARCHIVE_NAMES: [&str; 5] = ["oci-layout", "index.json", "blobs", "manifest.json", "repositories"];

/// An uncompressed tar stream, from its first byte.
pub(super) struct Tar<'a>(Box<dyn Read + 'a>);

/// The input, sorted.
pub(super) enum Opened {
    /// A folder.
    Folder(Folder),
    /// A tar that is converted as it comes, of this length if that is known.
    Stream { tar: Tar<'static>, length: Option<u64> },
    /// A tar to look up in, in a file.
    Archive(File),
}

/// Opens an input and tells what it is.
pub(super) fn open(
    input: Input,
    store: &Store,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Opened, ImportError> {
    let (mut source, file): (Box<dyn Read>, Option<File>) = match input {
        Input::Path(path) if path.is_dir() => return Ok(Opened::Folder(Folder::new(path))),
        Input::Path(path) => {
            let file = open_file(&path)?;
            let source = file.try_clone().map_err(ImportError::Read)?;
            (Box::new(source), file.metadata().is_ok_and(|it| it.is_file()).then_some(file))
        }
        Input::Stream(stream) => (stream, None),
    };
    let start = take(&mut source, 4).map_err(ImportError::Read)?;
    if start.is_empty() {
        return Err(ImportError::Empty);
    }
    let compressed = start.starts_with(b"\x1f\x8b") || start == b"\x28\xb5\x2f\xfd";
    let mut plain = decompress(start, source)?;
    let head = take(&mut plain, HEAD).map_err(ImportError::Decompress)?;
    let is_archive = is_archive(&head);
    let whole = Cursor::new(head).chain(plain);
    match file.filter(|_| !compressed) {
        Some(file) if is_archive => Ok(Opened::Archive(file)),
        _ if is_archive => keep(whole, store, progress, cancel).map(Opened::Archive),
        plain_file => {
            let length = plain_file.and_then(|file| file.metadata().ok()).map(|metadata| metadata.len());
            Ok(Opened::Stream { tar: Tar(Box::new(whole)), length })
        }
    }
}

impl<'a> Tar<'a> {
    /// All of a file.
    pub(super) fn whole(file: &'a mut File) -> Result<Self, ImportError> {
        file.rewind().map_err(ImportError::Read)?;
        Ok(Self(Box::new(file)))
    }
}

impl Read for Tar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

fn open_file(path: &Path) -> Result<File, ImportError> {
    File::open(path).map_err(|source| ImportError::Open { path: path.to_owned(), source })
}

fn take(source: &mut impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn decompress(start: Vec<u8>, source: Box<dyn Read>) -> Result<Box<dyn Read>, ImportError> {
    let gzip = start.starts_with(b"\x1f\x8b");
    let zstd = start == b"\x28\xb5\x2f\xfd";
    let source = Cursor::new(start).chain(source);
    if gzip {
        Ok(Box::new(MultiGzDecoder::new(BufReader::new(source))))
    } else if zstd {
        let mut decoder = zstd::Decoder::new(source).map_err(ImportError::Decompress)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(ImportError::Decompress)?;
        Ok(Box::new(decoder))
    } else {
        Ok(Box::new(source))
    }
}

/// Whether the first entry, other than the root itself, is one of an archive of images.
fn is_archive(head: &[u8]) -> bool {
    let mut members = Members::of(head);
    while let Ok(Some(member)) = members.next() {
        let Ok(name) = std::str::from_utf8(&member.name) else { return false };
        let mut parts = name.split('/').filter(|part| !matches!(*part, "" | "."));
        if let Some(first) = parts.next() {
            return ARCHIVE_NAMES.contains(&first) || is_content_name(first);
        }
    }
    false
}

/// A name made of a digest, as old versions of Docker and other tools give to layers and
/// configurations: `<64 hex digits>`, perhaps with `sha256:` before or a suffix after.
fn is_content_name(name: &str) -> bool {
    let name = name.strip_prefix("sha256:").unwrap_or(name);
    let (hex, suffix) = name.split_at_checked(64).unwrap_or(("", ""));
    !hex.is_empty()
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
        && (suffix.is_empty() || suffix.starts_with('.'))
}

/// Copies an archive to a nameless file in the store.
fn keep(
    mut tar: impl Read,
    store: &Store,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<File, ImportError> {
    let limit = Limits::default().expanded_bytes;
    let mut file = store.draft()?.into_file();
    let mut buffer = vec![0; COPY];
    let mut done = 0;
    loop {
        if cancel.is_cancelled() {
            return Err(ImportError::Cancelled);
        }
        let count = match tar.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ImportError::Decompress(error)),
        };
        done += count as u64;
        if done > limit {
            return Err(ImportError::Bomb(limit));
        }
        file.write_all(&buffer[..count]).map_err(ImportError::Spool)?;
        progress.event(Event::Reading { done });
    }
}
