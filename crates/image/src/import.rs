//! Importing: an image of a file, a folder or a stream comes into the store. What it is is told by
//! its content: an archive of `docker save`, an OCI archive or layout folder, else the tar of a
//! root file system; plain, gzip or zstd.
//!
//! The first entry decides whether a tar can be an archive of images. If not, it is converted as
//! it streams in. If so, it is brought to where it can be looked up in (a plain file is there
//! already, anything else goes to a nameless file in the store), and if it then turns out to hold
//! no image it is converted as a root file system after all.

mod archive;
mod docker;
mod error;
mod input;
mod layout;

use std::io::Read;
use std::path::PathBuf;

use api::image::ImageConfig;

pub use archive::ArchiveError;
pub use error::ImportError;

use self::archive::Archive;
use self::input::{Opened, Tar};
use crate::digest::Digest;
use crate::document::Configuration;
use crate::ingest::{self, Expected};
use crate::platform::Platform;
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::store::{Cancel, Disk, ImageRecord, Source, Store, distinct, now};

/// What to import.
pub enum Input {
    /// A file, or the folder of an OCI layout.
    Path(PathBuf),
    /// A stream, for example standard input. It is read once.
    Stream(Box<dyn Read + Send>),
}

/// How to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The tag that the image gets.
    pub tag: Reference,
    /// Which image of an archive of several: one of its own tags.
    pub select: Option<String>,
    /// For which platform; this machine's if `None`.
    pub platform: Option<Platform>,
    /// How a root file system is to be run, which says nothing of that itself. Images keep their
    /// own.
    pub config: ImageConfig,
}

impl ImportOptions {
    /// Under this tag, for this machine.
    #[must_use]
    pub fn new(tag: Reference) -> Self {
        Self { tag, select: None, platform: None, config: ImageConfig::default() }
    }
}

/// An image found in an archive or a folder.
struct Found {
    digest: Digest,
    configuration: Configuration,
    /// Lowest first, one for each diff ID.
    layers: Vec<Blob>,
}

/// A file of an archive or a folder.
struct Blob {
    path: String,
    /// Of its bytes, where that is known and to be checked.
    digest: Option<Digest>,
}

/// Where an image's files are.
trait Files {
    /// A file's content; `None` if there is no such file.
    fn open(&self, path: &str) -> Result<Option<Content<'_>>, ImportError>;
}

/// A file's content.
struct Content<'a> {
    bytes: Box<dyn Read + 'a>,
    length: u64,
}

/// What an import works with.
struct Import<'a> {
    store: &'a Store,
    options: &'a ImportOptions,
    wanted: Platform,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

/// Imports an image. Layers that the store has already are not read.
///
/// # Errors
/// The input cannot be read, is damaged or hostile, holds no image for this platform or several
/// to choose from; the disk fails; or it was cancelled. Nothing is left then but layers that were
/// complete.
pub fn import(
    store: &Store,
    input: Input,
    options: &ImportOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ImageRecord, ImportError> {
    if options.tag.digest().is_some() {
        return Err(ImportError::TagIsDigest(options.tag.clone()));
    }
    let wanted = options.platform.clone().unwrap_or_else(Platform::host);
    let import = Import { store, options, wanted, progress, cancel };
    match input::open(input, store, progress, cancel)? {
        Opened::Folder(folder) => import.image(&folder, layout::find(&folder, options, &import.wanted)?),
        Opened::Stream { tar, length } => import.root_file_system(tar, length),
        Opened::Archive(mut file) => {
            let archive = Archive::index(&file)?;
            if archive.has(docker::MANIFEST) {
                import.image(&archive, docker::find(&archive, options)?)
            } else if archive.has(layout::INDEX) {
                import.image(&archive, layout::find(&archive, options, &import.wanted)?)
            } else {
                let length = archive.length();
                import.root_file_system(Tar::whole(&mut file)?, Some(length))
            }
        }
    }
}

impl Import<'_> {
    fn image(&self, files: &dyn Files, found: Found) -> Result<ImageRecord, ImportError> {
        let Found { digest, configuration, layers } = found;
        let platform = configuration.check(&self.wanted, layers.len())?;
        let diff_ids = distinct(&configuration.diff_ids);
        self.progress.event(Event::Layers { diff_ids: diff_ids.clone() });
        let mut held = Vec::with_capacity(diff_ids.len());
        for diff_id in diff_ids {
            let mut described = configuration.diff_ids.iter().zip(&layers);
            let Some((_, blob)) = described.find(|(id, _)| **id == diff_id) else { continue };
            held.push(self.layer(files, diff_id, blob)?);
        }
        self.enter(digest, platform, configuration.config, configuration.diff_ids, &held)
    }

    fn layer(&self, files: &dyn Files, diff_id: Digest, blob: &Blob) -> Result<Disk, ImportError> {
        let _claim = self.store.claim(&diff_id, self.cancel)?;
        if let Some(disk) = self.store.layer(&diff_id)? {
            self.progress.event(Event::Present { diff_id });
            return Ok(disk);
        }
        let content = open(files, &blob.path)?;
        let expected = Expected { diff_id: Some(diff_id), blob: blob.digest, length: Some(content.length) };
        Ok(ingest::layer(self.store, content.bytes, expected, self.progress, self.cancel)?.disk)
    }

    fn root_file_system(&self, tar: Tar<'_>, length: Option<u64>) -> Result<ImageRecord, ImportError> {
        let expected = Expected { diff_id: None, blob: None, length };
        let layer = ingest::layer(self.store, tar, expected, self.progress, self.cancel)?;
        let config = self.options.config.clone();
        let identity = serde_json::json!({
            "platform": self.wanted, "config": config, "diff_ids": [layer.diff_id],
        });
        let digest = Digest::of(identity.to_string().as_bytes());
        self.enter(digest, self.wanted.clone(), config, vec![layer.diff_id], &[layer.disk])
    }

    /// Enters the image. Its layers are held until then.
    fn enter(
        &self,
        digest: Digest,
        platform: Platform,
        config: ImageConfig,
        layers: Vec<Digest>,
        held: &[Disk],
    ) -> Result<ImageRecord, ImportError> {
        let image = ImageRecord {
            tag: self.options.tag.clone(),
            source: Source::Import,
            digest,
            platform,
            config,
            layers,
            size: held.iter().map(Disk::size).sum(),
            created: now(),
        };
        self.store.put(&image)?;
        Ok(image)
    }
}

fn open<'f>(files: &'f dyn Files, path: &str) -> Result<Content<'f>, ImportError> {
    files.open(path)?.ok_or_else(|| ImportError::Missing(path.to_owned()))
}

/// A document, whole. If its digest is known, that is checked.
fn document(files: &dyn Files, path: &str, digest: Option<Digest>) -> Result<Vec<u8>, ImportError> {
    let content = open(files, path)?;
    if content.length > crate::document::MAX_DOCUMENT {
        return Err(ImportError::TooLarge(path.to_owned()));
    }
    let mut bytes = Vec::new();
    content.bytes.take(content.length).read_to_end(&mut bytes).map_err(ImportError::Read)?;
    let actual = Digest::of(&bytes);
    match digest.filter(|expected| *expected != actual) {
        Some(expected) => Err(ImportError::Digest { path: path.to_owned(), expected, actual }),
        None => Ok(bytes),
    }
}
