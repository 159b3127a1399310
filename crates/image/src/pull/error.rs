//! What can go wrong with a pull.

use api::{Explain, Kind};
use thiserror::Error;

use crate::document::DocumentError;
use crate::ingest::IngestError;
use crate::registry::RegistryError;
use crate::store::StoreError;

/// Why an image was not pulled.
#[derive(Debug, Error)]
pub enum PullError {
    /// The registry did not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// It is not an image that can run here.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// One of its layers is bad.
    #[error(transparent)]
    Layer(#[from] IngestError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PullError {
    fn explain(&self) -> &dyn Explain {
        match self {
            Self::Registry(error) => error,
            Self::Document(error) => error,
            Self::Layer(error) => error,
            Self::Store(error) => error,
        }
    }
}

impl Explain for PullError {
    fn kind(&self) -> Kind {
        self.explain().kind()
    }

    fn hint(&self) -> Option<String> {
        self.explain().hint()
    }
}
