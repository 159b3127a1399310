//! What can be wrong with an image's documents.

use api::{Explain, Kind};
use thiserror::Error;

use super::{MAX_INDEX_DEPTH, MAX_LAYERS};

/// Why an image's documents do not describe an image that can run here.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// Not the JSON it must be.
    #[error("the image's {what} is malformed")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A manifest that one reader would take for an index and another for an image.
    #[error("the image's manifest is neither clearly an image nor clearly an index")]
    Ambiguous,
    /// Docker's first manifest format, given up in 2016: its layers cannot be checked.
    #[error("the image has a manifest of Docker's schema 1, which is no longer supported")]
    Schema1,
    /// A manifest of something other than a container image.
    #[error("not a container image, but {0:?}")]
    NotAnImage(String),
    /// A layer of a kind that cannot be read, for example an encrypted one.
    #[error("a layer of the image is of an unsupported type, {0:?}")]
    LayerType(String),
    /// The index has no image for this platform.
    #[error("the image does not exist for {wanted}, only for {}", list(available))]
    NoPlatform {
        /// Which was looked for.
        wanted: String,
        /// Which there are.
        available: Vec<String>,
    },
    /// The image is for another platform.
    #[error("the image is for {found}, not for {wanted}")]
    WrongPlatform {
        /// Which was looked for.
        wanted: String,
        /// What the image's configuration says.
        found: String,
    },
    /// Manifest and configuration are not of the same image.
    #[error("the image has {layers} layers, but its configuration speaks of {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// More layers than any tool makes.
    #[error("the image has {0} layers, more than {MAX_LAYERS}")]
    TooManyLayers(usize),
    /// Index in index in index.
    #[error("the image's index refers to others more than {MAX_INDEX_DEPTH} deep")]
    TooDeep,
}

fn list(available: &[String]) -> String {
    match available {
        [] => "no platform at all".into(),
        some => some.join(", "),
    }
}

impl Explain for DocumentError {
    fn kind(&self) -> Kind {
        match self {
            Self::Malformed { .. } | Self::Ambiguous | Self::LayerCount { .. } => Kind::Corrupt,
            Self::NoPlatform { .. } => Kind::NotFound,
            Self::TooManyLayers(_) | Self::TooDeep => Kind::LimitExceeded,
            Self::Schema1 | Self::NotAnImage(_) | Self::LayerType(_) | Self::WrongPlatform { .. } => {
                Kind::InvalidInput
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Schema1 => {
                Some("push the image again with a current version of Docker, Podman or skopeo".into())
            }
            Self::NoPlatform { wanted, .. } | Self::WrongPlatform { wanted, .. } => {
                Some(format!("use an image that was built for {wanted}"))
            }
            Self::TooManyLayers(_) => Some("squash the image's layers".into()),
            Self::NotAnImage(_) => Some("check the name: this is an artifact of another kind".into()),
            _ => None,
        }
    }
}
