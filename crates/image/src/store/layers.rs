//! Layers in the store, by diff ID, and the disks that a run is given of them.
//!
//! Who uses a layer holds a shared lock on its file. [`Store::gc`] removes only what it can lock
//! alone, so a layer is never taken from a run, nor from a pull that found it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::record::ImageRecord;
use super::{Cancel, Store, StoreError};
use super::{Draft, PUBLISHED_MODE};
use crate::digest::Digest;
use crate::layer::{self, Limits};

/// The most disks an image is given as they are; above that its layers are merged into one. A
/// machine of QEMU's `microvm` has 24 or so virtio transports for everything.
pub const MAX_DISKS: usize = 8;

/// How often somebody else's work on the same layer is looked at.
pub(crate) const CLAIM_POLL: Duration = Duration::from_millis(50);

/// A disk image in the store, a read-only EROFS file system, that stays as long as this is held.
#[derive(Debug)]
pub struct Disk {
    file: File,
    path: PathBuf,
    size: u64,
}

impl Disk {
    /// Open for reading. Its lock goes with the last copy of this descriptor.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length, bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// The disks of an image's root, kept from being collected as long as this is held.
#[derive(Debug)]
pub struct LayerSet {
    disks: Vec<Disk>,
}

impl LayerSet {
    /// Lowest first, at most [`MAX_DISKS`]; none for an image without layers.
    #[must_use]
    pub fn disks(&self) -> &[Disk] {
        &self.disks
    }
}

/// The right to make one layer; ends when dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    _lock: File,
}

impl Store {
    /// Opens what a run of this image needs. If the image has too many layers for a machine, they
    /// are merged first, once for all images with the same layers.
    ///
    /// # Errors
    /// A layer is missing or damaged, the disk fails, or it was cancelled.
    pub fn open_layers(&self, image: &ImageRecord, cancel: &Cancel) -> Result<LayerSet, StoreError> {
        let mut disks = self.open_all(image)?;
        if disks.len() > MAX_DISKS {
            disks = vec![self.merged(&distinct(&image.layers), disks, cancel)?];
        }
        Ok(LayerSet { disks })
    }

    /// Opens every layer of an image, lowest first.
    pub(crate) fn open_all(&self, image: &ImageRecord) -> Result<Vec<Disk>, StoreError> {
        let open = |diff_id: Digest| {
            self.layer(&diff_id)?
                .ok_or_else(|| StoreError::LayerMissing { tag: image.tag.familiar(), diff_id })
        };
        distinct(&image.layers).into_iter().map(open).collect()
    }

    /// A layer that is in the store.
    pub(crate) fn layer(&self, diff_id: &Digest) -> Result<Option<Disk>, StoreError> {
        open_shared(self.layer_path(diff_id))
    }

    /// Waits until nobody else makes this layer.
    pub(crate) fn claim(&self, what: &Digest, cancel: &Cancel) -> Result<Claim, StoreError> {
        loop {
            if let Some(claim) = self.try_claim(what)? {
                return Ok(claim);
            }
            if cancel.is_cancelled() {
                return Err(StoreError::Cancelled);
            }
            thread::sleep(CLAIM_POLL);
        }
    }

    /// The right to make this layer, unless somebody else is at it. Layers whose digests begin
    /// alike share a lock file: they wait for each other, and no lock file is ever left over.
    pub(crate) fn try_claim(&self, what: &Digest) -> Result<Option<Claim>, StoreError> {
        let path = self.claims().join(&what.hex()[..2]);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Claim { _lock: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path)(error)),
        }
    }

    /// Makes a finished image this layer.
    pub(crate) fn publish_layer(&self, draft: Draft, diff_id: &Digest) -> Result<Disk, StoreError> {
        self.publish(draft, &self.layer_path(diff_id))
    }

    fn merged(&self, layers: &[Digest], disks: Vec<Disk>, cancel: &Cancel) -> Result<Disk, StoreError> {
        let chain = chain(layers);
        let path = self.merged_path(&chain);
        let _claim = self.claim(&chain, cancel)?;
        if let Some(disk) = open_shared(path.clone())? {
            return Ok(disk);
        }
        let files: Vec<File> = disks.into_iter().map(|disk| disk.file).collect();
        let mut draft = self.draft()?;
        let mut go_on =
            |_| if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        layer::merge(&files, draft.file(), &Limits::default(), &mut go_on).map_err(StoreError::Merge)?;
        self.publish(draft, &path)
    }

    /// Gives a draft its place. It is locked, and so is what is returned: no collector comes between.
    fn publish(&self, mut draft: Draft, path: &Path) -> Result<Disk, StoreError> {
        let guard = draft.file().try_clone().map_err(StoreError::io("open", path))?;
        // The slow part, while nobody waits for the store's lock.
        draft.file().sync_all().map_err(StoreError::io("write", path))?;
        // A collector that has locked what was in this place would remove the draft instead.
        let lock = self.lock()?;
        draft.replace(path, PUBLISHED_MODE).map_err(StoreError::io("write", path))?;
        drop(lock);
        let disk = open_shared(path.to_owned())?;
        drop(guard);
        disk.ok_or_else(|| StoreError::io("open", path)(io::ErrorKind::NotFound.into()))
    }
}

/// The layers that count: of one that occurs again, everything its lower occurrence does is done
/// again by the upper one.
pub(crate) fn distinct(layers: &[Digest]) -> Vec<Digest> {
    let occurs_above = |index: usize| layers[index + 1..].contains(&layers[index]);
    (0..layers.len()).filter(|index| !occurs_above(*index)).map(|index| layers[index]).collect()
}

/// What names a merged image: the layers it is made of, in their order.
pub(crate) fn chain(layers: &[Digest]) -> Digest {
    let list: Vec<String> = layers.iter().map(Digest::to_string).collect();
    Digest::of(list.join("\n").as_bytes())
}

fn open_shared(path: PathBuf) -> Result<Option<Disk>, StoreError> {
    loop {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        file.lock_shared().map_err(StoreError::io("lock", &path))?;
        let metadata = file.metadata().map_err(StoreError::io("read", &path))?;
        // Removed or replaced between opening and locking: look again.
        if metadata.nlink() > 0 {
            return Ok(Some(Disk { file, path, size: metadata.len() }));
        }
    }
}

/// Removes a layer or merged image that nobody holds; `None` if somebody does. The caller has locked the
/// store, so that what is locked here is still in its place when it is removed.
pub(super) fn remove_unused(path: &Path) -> io::Result<Option<u64>> {
    let file = File::open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let bytes = file.metadata()?.blocks() * 512;
    fs::remove_file(path)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_counts_where_it_is_uppermost() {
        let [a, b, c] = [Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c")];
        assert_eq!(distinct(&[a, b, a, c]), [b, a, c]);
        assert_eq!(distinct(&[a, a, a]), [a]);
        assert_eq!(distinct(&[]), []);
        assert_ne!(chain(&[a, b]), chain(&[b, a]));
    }

    #[test]
    fn no_layer_is_replaced_during_a_collection() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let id = Digest::of(b"a layer");
        let publish = || store.publish_layer(store.draft().unwrap(), &id).unwrap();
        drop(publish());
        let inode = || store.layer_path(&id).metadata().unwrap().ino();
        let before = inode();
        thread::scope(|scope| {
            let collecting = store.lock().unwrap();
            let publishing = scope.spawn(publish);
            thread::sleep(Duration::from_millis(100));
            assert_eq!(inode(), before);
            drop(collecting);
            publishing.join().unwrap();
            assert_ne!(inode(), before);
        });
    }
}
