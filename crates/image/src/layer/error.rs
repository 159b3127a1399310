//! What can be wrong with a layer, or stop its conversion.

use std::io;

use api::{Explain, Kind};
use thiserror::Error;

/// Why a layer was not converted, or layers not merged.
#[derive(Debug, Error)]
pub enum LayerError {
    /// The source failed.
    #[error("the layer cannot be read")]
    Read(#[source] io::Error),
    /// The caller's progress function said to stop.
    #[error("the conversion was cancelled")]
    Cancelled,
}

impl Explain for LayerError {
    fn kind(&self) -> Kind {
        match self {
            Self::Read(error) => api::error::io_kind(error),
            Self::Cancelled => Kind::Interrupted,
        }
    }
}
