//! The content store: layers by diff ID, shared between images; images by tag.
//!
//! ```text
//! images/<digest of the tag>.json     records
//! layers/sha256/<diff ID>.erofs       layers
//! merged/sha256/<chain>.erofs         images of more layers than a machine takes, as one
//! pins/<digest of a path>.json        layers needed by something outside the store
//! tmp/                                files on their way (see `sys::draft`)
//! claims/<two hex digits>             locks: who makes a layer
//! lock                                lock: who changes or reads the records as a whole, or puts a layer in its place
//! ```
//!
//! Any number of processes use it at once. Nothing is visible before it is complete and on the
//! disk; nothing is removed while it is used. All locks are the kernel's and end with their holder.

mod error;
mod gc;
mod layers;
mod pin;
mod record;

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::digest::Digest;

pub use error::StoreError;
pub(crate) use error::disk_hint;
pub use gc::GcReport;
pub(crate) use layers::{CLAIM_POLL, Claim, distinct};
pub use layers::{Disk, LayerSet, MAX_DISKS};
pub(crate) use record::now;
pub use record::{ImageRecord, Source};
pub(crate) use sys::draft::Draft;

/// What is published is never changed again.
const PUBLISHED_MODE: u32 = 0o400;

/// A store. Cheap to clone; any number may be open at the same place.
#[derive(Debug, Clone)]
pub struct Store {
    root: Arc<Path>,
}

/// Asks long work on files to stop, from any thread; it does so within a MiB or so.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Store {
    /// Opens the store in a folder, which is made if it is not there, and removes what killed
    /// processes left in it.
    ///
    /// # Errors
    /// The folder cannot be made or written to.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { root: root.into().into() };
        for folder in [
            store.records(),
            store.layers(),
            store.merged_folder(),
            store.pins(),
            store.tmp(),
            store.claims(),
        ] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(StoreError::io("create", &folder))?;
        }
        if let Err(error) = sys::draft::sweep(&store.tmp(), |_| true) {
            // Nothing that hinders: another user's, for example. `gc` says what it is.
            tracing::warn!(%error, "leftovers in the image store cannot be removed");
        }
        Ok(store)
    }

    /// A new file on its way into the store.
    pub(crate) fn draft(&self) -> Result<Draft, StoreError> {
        let tmp = self.tmp();
        Draft::create(&tmp).map_err(StoreError::io("create a file in", &tmp))
    }

    /// Makes this the only one that changes the set of images, or puts a layer in its place.
    fn lock(&self) -> Result<File, StoreError> {
        let path = self.root.join("lock");
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(StoreError::io("lock", &path))
    }

    fn records(&self) -> PathBuf {
        self.root.join("images")
    }

    fn layers(&self) -> PathBuf {
        self.root.join("layers/sha256")
    }

    fn merged_folder(&self) -> PathBuf {
        self.root.join("merged/sha256")
    }

    fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn claims(&self) -> PathBuf {
        self.root.join("claims")
    }

    fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(format!("{}.erofs", diff_id.hex()))
    }

    fn merged_path(&self, chain: &Digest) -> PathBuf {
        self.merged_folder().join(format!("{}.erofs", chain.hex()))
    }
}
