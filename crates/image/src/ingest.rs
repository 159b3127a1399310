//! One layer comes into the store: from a tar stream to a published EROFS image. What a layer must
//! be is checked before it is published.

use std::io::{self, Read};
use std::ops::ControlFlow;

use api::{Explain, Kind};
use thiserror::Error;

use crate::digest::{Digest, Digesting};
use crate::layer::{self, LayerError, Limits};
use crate::progress::{Event, Progress};
use crate::store::{Cancel, Disk, Store, StoreError};

/// What is known of a layer before it is read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Expected {
    /// Its diff ID, by the image's configuration.
    pub(crate) diff_id: Option<Digest>,
    /// The digest of its stream as it is stored, if that is still to be checked.
    pub(crate) blob: Option<Digest>,
    /// Bytes of its stream.
    pub(crate) length: Option<u64>,
}

/// A layer that is now in the store.
#[derive(Debug)]
pub(crate) struct Ingested {
    pub(crate) diff_id: Digest,
    pub(crate) disk: Disk,
}

/// Why a layer did not come into the store.
#[derive(Debug, Error)]
pub enum IngestError {
    /// It cannot be converted.
    #[error("{} cannot be converted", name(diff_id))]
    Layer {
        /// Which, if that is known.
        diff_id: Option<Digest>,
        /// Why not.
        source: LayerError,
    },
    /// It is another than the configuration says.
    #[error("layer {expected} is not what the image's configuration says: its content is {actual}")]
    DiffId {
        /// By the configuration.
        expected: Digest,
        /// By its content.
        actual: Digest,
    },
    /// Its bytes are others than its name says.
    #[error("blob {expected} is damaged: its bytes have the digest {actual}")]
    Blob {
        /// Its name.
        expected: Digest,
        /// Of its bytes.
        actual: Digest,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn name(diff_id: &Option<Digest>) -> String {
    diff_id.map_or_else(|| "the root file system".to_owned(), |diff_id| format!("layer {diff_id}"))
}

impl Explain for IngestError {
    fn kind(&self) -> Kind {
        match self {
            Self::Layer { source, .. } => source.kind(),
            Self::DiffId { .. } | Self::Blob { .. } => Kind::Corrupt,
            Self::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Layer { source, .. } => source.hint(),
            Self::DiffId { .. } | Self::Blob { .. } => {
                Some("the image is damaged: build or fetch it again".into())
            }
            Self::Store(error) => error.hint(),
        }
    }
}

/// Converts a layer and publishes it, if it is all that it is expected to be. The caller has claimed
/// a layer whose diff ID it knows.
pub(crate) fn layer(
    store: &Store,
    source: impl Read,
    expected: Expected,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Ingested, IngestError> {
    let failed = |source| IngestError::Layer { diff_id: expected.diff_id, source };
    let mut source = Digesting::new(source, expected.blob.is_some());
    let mut draft = store.draft()?;
    let mut heard = |done| {
        progress.event(Event::Converting { diff_id: expected.diff_id, done, total: expected.length });
        if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let converted =
        layer::convert(&mut source, draft.file(), &Limits::default(), &mut heard).map_err(failed)?;
    let actual = Digest::from(converted.diff_id);
    if let Some(expected) = expected.diff_id.filter(|it| *it != actual) {
        return Err(IngestError::DiffId { expected, actual });
    }
    if let Some(blob) = expected.blob {
        // What follows the tar stream belongs to the blob too.
        io::copy(&mut source, &mut io::sink()).map_err(LayerError::Read).map_err(failed)?;
        if let Some(actual) = source.finish().filter(|it| *it != blob) {
            return Err(IngestError::Blob { expected: blob, actual });
        }
    }
    let disk = match expected.diff_id {
        Some(_) => store.publish_layer(draft, &actual)?,
        // The caller could not claim it, nor see whether it was there.
        None => {
            let _claim = store.claim(&actual, cancel)?;
            match store.layer(&actual)? {
                Some(disk) => disk,
                None => store.publish_layer(draft, &actual)?,
            }
        }
    };
    progress.event(Event::Done { diff_id: actual });
    Ok(Ingested { diff_id: actual, disk })
}
