//! Pins: layers that something outside the store needs although no image may any more, as the disk
//! of a stopped sandbox needs those that it was written over.
//!
//! A pin names its holder, a path on this host. It counts for as long as that exists, so whoever
//! removes the holder by hand leaves nothing that lasts.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{ImageRecord, Store, StoreError};
use crate::digest::Digest;

/// What a pin's file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Pin {
    holder: PathBuf,
    layers: Vec<Digest>,
}

impl Store {
    /// Keeps the layers of an image for as long as `holder`, which exists, does; or until the file
    /// is removed whose path [`Store::pin_path`] gives. The caller holds the layers, so that none is
    /// collected before.
    ///
    /// # Errors
    /// The disk fails.
    pub fn pin(&self, image: &ImageRecord, holder: &Path) -> Result<(), StoreError> {
        let path = self.pin_path(holder);
        let pin = Pin { holder: holder.to_owned(), layers: image.layers.clone() };
        let json = serde_json::to_vec(&pin)
            .map_err(|source| StoreError::DamagedRecord { path: path.clone(), source })?;
        let mut draft = self.draft()?;
        let _lock = self.lock()?;
        draft
            .file()
            .write_all(&json)
            .and_then(|()| draft.publish(&path))
            .map_err(StoreError::io("write", &path))
    }

    /// Where the pin of this holder is.
    #[must_use]
    pub fn pin_path(&self, holder: &Path) -> PathBuf {
        let name = Digest::of(holder.as_os_str().as_encoded_bytes());
        self.pins().join(format!("{}.json", name.hex()))
    }

    /// The layers of all pins whose holder exists; the other pins are removed. The caller has locked
    /// the store.
    pub(super) fn pinned_layers(&self) -> Result<Vec<Vec<Digest>>, StoreError> {
        let folder = self.pins();
        let mut pinned = Vec::new();
        for entry in fs::read_dir(&folder).map_err(StoreError::io("list", &folder))? {
            let path = entry.map_err(StoreError::io("list", &folder))?.path();
            let json = match fs::read(&path) {
                // Its holder has just removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                json => json.map_err(StoreError::io("read", &path))?,
            };
            let pin: Pin = serde_json::from_slice(&json)
                .map_err(|source| StoreError::DamagedRecord { path: path.clone(), source })?;
            match pin.holder.try_exists() {
                Ok(false) => fs::remove_file(&path).map_err(StoreError::io("remove", &path))?,
                // What cannot be looked at may be there.
                Ok(true) | Err(_) => pinned.push(pin.layers),
            }
        }
        Ok(pinned)
    }
}
