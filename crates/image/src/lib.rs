//! OCI images: references, the registry, layers as EROFS images, the content store.
//!
//! How the parts fit together:
//!
//! ```text
//! let store = Store::open(cache.join("images"))?;         // sync; makes the folders, sweeps leftovers
//! let tag: Reference = "debian:12".parse()?;              // Docker's grammar; a local tag is one too
//!
//! let image = match store.find(&tag)? {                   // by the normalised name
//!     Some(image) => image,
//!     None => pull::pull(&store, &tag, &PullOptions::default(), progress).await?.image,
//! };
//! let layers = store.open_layers(&image, &cancel)?;       // sync; locks, merges above MAX_DISKS
//! for disk in layers.disks() { … }                        // lowest first; keep `layers` while the VM runs
//! image.config                                            // api::image::ImageConfig
//!
//! import::import(&store, Input::Path(path), &ImportOptions::new(tag), &progress, &cancel)?
//!                                                         // sync; or Input::Stream(reader) -> ImageRecord
//! store.list()? · store.remove(&tag)? · store.gc()?       // sync
//! ```
//!
//! Network is async (tokio); a pull is cancelled by dropping its future. Files are sync, for a
//! blocking thread; long work on them is stopped by a [`store::Cancel`]. Whoever waits is told by a
//! [`progress::Progress`]. Every public error implements [`api::Explain`].

pub mod digest;
pub mod document;
pub mod erofs;
pub mod import;
mod ingest;
pub mod layer;
pub mod platform;
pub mod progress;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod store;

pub use ingest::IngestError;
