//! Pins: layers that something outside the store needs although no image may any more, as the disk
//! of a stopped sandbox needs those that it was written over.
//!
//! A pin names its holder, a path on this host. It counts for as long as that exists, so whoever
//! removes the holder by hand leaves nothing that lasts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::record::read_json;
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
        let pin = Pin { holder: holder.to_owned(), layers: image.layers.clone() };
        self.write_json(&self.pin_path(holder), &pin)
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
            // Otherwise its holder has just removed it.
            let Some(pin) = read_json::<Pin>(&path)? else { continue };
            match pin.holder.try_exists() {
                Ok(false) => match fs::remove_file(&path) {
                    Ok(()) => {}
                    // Who removed its holder was quicker.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(StoreError::io("remove", &path)(error)),
                },
                // What cannot be looked at may be there.
                Ok(true) | Err(_) => pinned.push(pin.layers),
            }
        }
        Ok(pinned)
    }
}
