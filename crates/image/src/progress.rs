//! What a pull or an import tells while it works. The listener draws; nothing here knows how.

use std::time::Duration;

use crate::digest::Digest;

/// A step of a pull or an import. Events of different layers interleave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An archive is read to its end, before it can be looked into.
    Reading {
        /// Uncompressed bytes so far.
        done: u64,
    },
    /// The image is known: so many layers, in the order from the lowest up.
    Layers {
        /// Diff IDs.
        diff_ids: Vec<Digest>,
    },
    /// A layer is in the store already, nothing is to be done for it.
    Present {
        /// Which.
        diff_id: Digest,
    },
    /// Bytes of a layer as it is transferred, usually compressed.
    Downloading {
        /// Which.
        diff_id: Digest,
        /// Bytes so far; less than before if the server could not resume.
        done: u64,
        /// All of them.
        total: u64,
    },
    /// A request failed and is tried again.
    Retrying {
        /// Why, as text.
        reason: String,
        /// How long it waits first.
        delay: Duration,
    },
    /// Bytes of a layer, as transferred, that are converted.
    Converting {
        /// Which; `None` while it is not yet known, for a root file system being imported.
        diff_id: Option<Digest>,
        /// Bytes so far.
        done: u64,
        /// All of them, if that is known.
        total: Option<u64>,
    },
    /// A layer is in the store.
    Done {
        /// Which.
        diff_id: Digest,
    },
}

/// Who listens. Called from any thread, often: it must return quickly.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: Event);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event) {}
}

impl<F: Fn(Event) + Send + Sync> Progress for F {
    fn event(&self, event: Event) {
        self(event);
    }
}
