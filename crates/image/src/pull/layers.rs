//! The layers of a pull: each is found in the store, or fetched by whoever comes first.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use super::{Described, PullError};
use crate::digest::Digest;
use crate::document::Descriptor;
use crate::ingest::{self, Expected, IngestError};
use crate::progress::{Event, Progress};
use crate::registry::Client;
use crate::store::{CLAIM_POLL, Cancel, Claim, Disk, Store, StoreError, distinct};

/// Layers under way at a time, each on a connection of its own.
const PARALLEL: usize = 3;

/// What all layers of a pull have in common.
struct Fetch {
    store: Store,
    client: Client,
    force: bool,
    progress: Arc<dyn Progress>,
    cancel: Cancel,
}

/// Stops conversions, which no future drop reaches, when the pull ends early.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Brings the layers of an image into the store, and holds them there.
pub(super) async fn fetch(
    store: &Store,
    client: Client,
    image: &Described,
    force: bool,
    progress: Arc<dyn Progress>,
) -> Result<Vec<Disk>, PullError> {
    let cancel = Cancel::default();
    let _stop = CancelOnDrop(cancel.clone());
    let diff_ids = distinct(&image.configuration.diff_ids);
    progress.event(Event::Layers { diff_ids: diff_ids.clone() });
    let fetch = Arc::new(Fetch { store: store.clone(), client, force, progress, cancel });
    let permits = Arc::new(Semaphore::new(PARALLEL));
    // Dropping the set aborts its tasks.
    let mut tasks = JoinSet::new();
    for diff_id in diff_ids {
        let described = image.configuration.diff_ids.iter().zip(&image.layers);
        let Some((_, blob)) = described.into_iter().find(|(id, _)| **id == diff_id) else { continue };
        let (fetch, permits, blob) = (fetch.clone(), permits.clone(), blob.clone());
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            fetch.layer(diff_id, &blob).await
        });
    }
    let mut disks = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        disks.push(ended.unwrap_or_else(|error| Err(not_ended(error).into()))?);
    }
    Ok(disks)
}

impl Fetch {
    async fn layer(&self, diff_id: Digest, blob: &Descriptor) -> Result<Disk, PullError> {
        let claim = self.claim(&diff_id).await?;
        if !self.force
            && let Some(disk) = self.store.layer(&diff_id)?
        {
            self.progress.event(Event::Present { diff_id });
            return Ok(disk);
        }
        let mut download = self.store.draft()?;
        let total = blob.size;
        let heard = |done| self.progress.event(Event::Downloading { diff_id, done, total });
        self.client.download(blob, download.file(), heard).await?;
        let (store, progress, cancel) = (self.store.clone(), self.progress.clone(), self.cancel.clone());
        let convert = move || {
            let _claim = claim;
            let expected = Expected { diff_id: Some(diff_id), blob: None, length: Some(total) };
            ingest::layer(&store, download.file(), expected, &*progress, &cancel)
        };
        let converted = tokio::task::spawn_blocking(convert).await;
        Ok(converted.unwrap_or_else(|error| Err(not_ended(error)))?.disk)
    }

    /// Waits until no other pull or import makes this layer.
    async fn claim(&self, diff_id: &Digest) -> Result<Claim, PullError> {
        loop {
            if let Some(claim) = self.store.try_claim(diff_id)? {
                return Ok(claim);
            }
            tokio::time::sleep(CLAIM_POLL).await;
        }
    }
}

/// Why a task has no result: it panicked, which goes on here, or the runtime is shutting down.
fn not_ended(error: JoinError) -> IngestError {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => StoreError::Cancelled.into(),
    }
}
