//! Image records: what the store knows of a tag, one JSON file each, replaced in one step. The
//! file's name is the digest of the tag, so that no tag is too long or too odd for a file system.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use api::image::ImageConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{PUBLISHED_MODE, Store, StoreError};
use crate::digest::Digest;
use crate::platform::Platform;
use crate::reference::Reference;

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its name here.
    pub tag: Reference,
    /// Where it came from.
    pub source: Source,
    /// What identifies its content: of a pulled image, the manifest or index that its reference
    /// named; of an imported one, its manifest if it had one, else its configuration.
    pub digest: Digest,
    /// What it runs on.
    pub platform: Platform,
    /// How it is run.
    pub config: ImageConfig,
    /// Diff IDs of its layers, lowest first.
    pub layers: Vec<Digest>,
    /// Bytes of its layers in the store, each counted once.
    pub size: u64,
    /// When it came into the store, seconds of the Unix epoch.
    pub created: u64,
}

/// Where an image came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// From a registry, by this reference.
    Pull(Reference),
    /// From a file, a folder or standard input.
    Import,
}

/// As the `SOURCE` column of a list shows it.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pull(reference) => f.write_str(&reference.familiar()),
            Self::Import => f.write_str("import"),
        }
    }
}

impl Store {
    /// The image of this tag, if there is one.
    ///
    /// # Errors
    /// Its record is damaged, or the disk fails.
    pub fn find(&self, tag: &Reference) -> Result<Option<ImageRecord>, StoreError> {
        self.read_record(self.record_path(tag))
    }

    /// All images, by tag.
    ///
    /// # Errors
    /// A record is damaged, or the disk fails.
    pub fn list(&self) -> Result<Vec<ImageRecord>, StoreError> {
        let folder = self.records();
        let entries = fs::read_dir(&folder).map_err(StoreError::io("list", &folder))?;
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.map_err(StoreError::io("list", &folder))?.path();
            // `None`: removed since it was listed.
            records.extend(self.read_record(path)?);
        }
        records.sort_by(|a, b| a.tag.cmp(&b.tag));
        Ok(records)
    }

    /// Removes a tag. Layers that no image needs any more stay until [`Store::gc`].
    ///
    /// # Errors
    /// There is no such tag, or the disk fails. A damaged record can be removed.
    pub fn remove(&self, tag: &Reference) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let path = self.record_path(tag);
        fs::remove_file(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::UnknownImage(tag.clone()),
            _ => StoreError::io("remove", &path)(error),
        })
    }

    /// Enters an image, in place of one with the same tag. The caller holds its layers, so that
    /// none is collected before.
    pub(crate) fn put(&self, record: &ImageRecord) -> Result<(), StoreError> {
        self.write_json(&self.record_path(&record.tag), record)
    }

    fn read_record(&self, path: PathBuf) -> Result<Option<ImageRecord>, StoreError> {
        let Some(record) = read_json::<ImageRecord>(&path)? else { return Ok(None) };
        if self.record_path(&record.tag) != path {
            return Err(StoreError::MisplacedRecord { path, tag: record.tag });
        }
        Ok(Some(record))
    }

    /// Writes what others find at `path`, in place of what is there, in one step.
    pub(super) fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
        let mut json = serde_json::to_vec_pretty(value)
            .map_err(|source| StoreError::DamagedRecord { path: path.to_owned(), source })?;
        json.push(b'\n');
        let mut draft = self.draft()?;
        let _lock = self.lock()?;
        draft
            .file()
            .write_all(&json)
            .and_then(|()| draft.replace(path, PUBLISHED_MODE))
            .map_err(StoreError::io("write", path))
    }

    fn record_path(&self, tag: &Reference) -> PathBuf {
        self.records().join(format!("{}.json", Digest::of(tag.to_string().as_bytes()).hex()))
    }
}

/// What is written at `path`; `None` if nothing is.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .map_err(|source| StoreError::DamagedRecord { path: path.to_owned(), source }),
    }
}

/// Seconds of the Unix epoch; 0 where the clock is before it.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
