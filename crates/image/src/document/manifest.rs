//! Manifests: an index of images, or one image's configuration and layers.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{DocumentError, MAX_LAYERS};
use crate::digest::Digest;
use crate::platform::Platform;

/// Media types of a configuration that can be run.
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Media types of layers, without their compression. Which that is, the bytes tell.
const LAYER_TYPES: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];

/// How a layer's media type ends.
const COMPRESSIONS: [&str; 5] = ["", "+gzip", "+zstd", ".gzip", ".zstd"];

/// What refers to a blob: its digest and length are checked of whatever claims to be it. Its `urls`
/// are ignored: a registry must not make us fetch from elsewhere (CVE-2020-15157).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

/// A manifest.
#[derive(Debug)]
pub(crate) enum Manifest {
    /// Of images, or of further indexes.
    Index(Vec<Descriptor>),
    /// Of one image.
    Image {
        config: Descriptor,
        /// Lowest first.
        layers: Vec<Descriptor>,
    },
}

/// All that any kind of manifest may have at the top; which are there tells the kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

impl Manifest {
    /// Reads an index or a manifest. The shape decides which it is, and a document with the shape
    /// of both is refused (CVE-2021-41190).
    pub(crate) fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        let raw: Raw = serde_json::from_slice(json)
            .map_err(|source| DocumentError::Malformed { what: "manifest", source })?;
        if raw.schema_version == Some(1) {
            return Err(DocumentError::Schema1);
        }
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => Ok(Self::Index(manifests)),
            (None, Some(config), Some(layers)) => image(config, layers),
            (None, None, None) if raw.media_type.is_some() => {
                Err(DocumentError::NotAnImage(raw.media_type.unwrap_or_default()))
            }
            _ => Err(DocumentError::Ambiguous),
        }
    }
}

fn image(config: Descriptor, layers: Vec<Descriptor>) -> Result<Manifest, DocumentError> {
    if !CONFIG_TYPES.contains(&config.media_type.as_str()) {
        return Err(DocumentError::NotAnImage(config.media_type));
    }
    if layers.len() > MAX_LAYERS {
        return Err(DocumentError::TooManyLayers(layers.len()));
    }
    match layers.iter().find(|layer| !is_layer(&layer.media_type)) {
        Some(layer) => Err(DocumentError::LayerType(layer.media_type.clone())),
        None => Ok(Manifest::Image { config, layers }),
    }
}

fn is_layer(media_type: &str) -> bool {
    LAYER_TYPES
        .iter()
        .any(|plain| media_type.strip_prefix(plain).is_some_and(|rest| COMPRESSIONS.contains(&rest)))
}

/// The entry of an index for a platform: the first that says so, else an only one that says
/// nothing, whose configuration will tell.
pub(crate) fn select<'a>(
    entries: impl Iterator<Item = &'a Descriptor> + Clone,
    wanted: &Platform,
) -> Result<&'a Descriptor, DocumentError> {
    let says_so = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|it| it.runs_on(wanted));
    let silent: Vec<&Descriptor> = entries.clone().filter(|entry| entry.platform.is_none()).collect();
    match (entries.clone().find(says_so), silent.as_slice()) {
        (Some(entry), _) => Ok(entry),
        (None, [entry]) => Ok(entry),
        _ => {
            let platforms = entries.filter_map(|entry| entry.platform.as_ref());
            // Attestations are entered as images for `unknown/unknown`.
            let available = platforms.map(Platform::to_string).filter(|it| it != "unknown/unknown").collect();
            Err(DocumentError::NoPlatform { wanted: wanted.to_string(), available })
        }
    }
}
