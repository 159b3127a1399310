//! Pulling: an image of a registry comes into the store.
//!
//! A layer is downloaded to a nameless file, checked against its digest, converted, and published
//! if the result has the diff ID that the image's configuration gives. Three layers are under way
//! at a time, so that one is converted while others are downloaded. The image is entered last, and
//! all its layers are held until then.

mod error;
mod layers;

use std::sync::Arc;

pub use error::PullError;

use crate::digest::Digest;
use crate::document::{Configuration, Descriptor, DocumentError, MAX_INDEX_DEPTH, Manifest, select};
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{Client, RegistryOptions, check_digest};
use crate::store::{ImageRecord, Source, Store, now};

/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Download and convert again what is there already.
    pub force: bool,
    /// For which platform; this machine's if `None`.
    pub platform: Option<Platform>,
    /// Under which tag to keep it; the reference itself if `None`.
    pub tag: Option<Reference>,
    /// How to talk to the registry.
    pub registry: RegistryOptions,
}

/// A pulled image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// As it is now in the store.
    pub image: ImageRecord,
    /// Whether it was there before, the same image under the same tag, so that nothing was done.
    pub up_to_date: bool,
}

/// An image as the registry describes it.
struct Described {
    platform: Platform,
    configuration: Configuration,
    /// Lowest first, one for each diff ID.
    layers: Vec<Descriptor>,
}

/// Pulls the image of a reference. What the store has already is not downloaded. Dropping the
/// future stops it and leaves nothing behind but layers that were complete.
///
/// Needs a tokio runtime with time and I/O; converts on its blocking threads.
///
/// # Errors
/// The registry cannot be reached, refuses, or sends what is not the image; the image is not for
/// this platform or cannot be converted; the disk fails.
pub async fn pull(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    progress: Arc<dyn Progress>,
) -> Result<Pulled, PullError> {
    let tag = options.tag.as_ref().unwrap_or(reference);
    let wanted = options.platform.clone().unwrap_or_else(Platform::host);
    // A damaged record does not count: it is replaced.
    let present =
        store.find(tag).ok().flatten().filter(|image| !options.force && image.platform.runs_on(&wanted));
    let is_present = |digest: Digest| {
        present.clone().filter(|image| image.digest == digest && store.open_all(image).is_ok())
    };
    if let Some(image) = reference.digest().and_then(&is_present) {
        return Ok(Pulled { image, up_to_date: true });
    }
    let client = Client::connect(reference, &options.registry, progress.clone()).await?;
    let manifest = client.manifest(&reference.version()).await?;
    let digest = Digest::of(&manifest);
    if let Some(pinned) = reference.digest() {
        check_digest("manifest", &pinned, &digest)?;
    }
    if let Some(image) = is_present(digest) {
        return Ok(Pulled { image, up_to_date: true });
    }
    let described = describe(&client, &manifest, &wanted).await?;
    let held = layers::fetch(store, client, &described, options.force, progress).await?;
    let image = ImageRecord {
        tag: tag.clone(),
        source: Source::Pull(reference.clone()),
        digest,
        platform: described.platform,
        config: described.configuration.config,
        layers: described.configuration.diff_ids,
        size: held.iter().map(crate::store::Disk::size).sum(),
        created: now(),
    };
    store.put(&image)?;
    Ok(Pulled { image, up_to_date: false })
}

/// Follows a manifest to the configuration and the layers of the image for a platform.
async fn describe(client: &Client, manifest: &[u8], wanted: &Platform) -> Result<Described, PullError> {
    let mut manifest = Manifest::parse(manifest)?;
    for _ in 0..=MAX_INDEX_DEPTH {
        match manifest {
            Manifest::Index(entries) => {
                let entry = select(entries.iter(), wanted)?;
                let json = client.manifest(&entry.digest.to_string()).await?;
                check_digest("manifest", &entry.digest, &Digest::of(&json))?;
                manifest = Manifest::parse(&json)?;
            }
            Manifest::Image { config, layers } => {
                let configuration = Configuration::parse(&client.small_blob(&config).await?)?;
                let platform = configuration.check(wanted, layers.len())?;
                return Ok(Described { platform, configuration, layers });
            }
        }
    }
    Err(DocumentError::TooDeep.into())
}
