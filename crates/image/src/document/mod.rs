//! The JSON documents of an image: index, manifest, configuration; of OCI and of Docker's schema 2,
//! which differ in media types only. Parsed into what is needed of them; nothing is fetched here.

mod config;
mod error;
mod manifest;

pub(crate) use config::Configuration;
pub use error::DocumentError;
pub(crate) use manifest::{Descriptor, Manifest, select};

/// The most bytes of one document. The OCI distribution specification asks registries to accept
/// manifests of 4 MiB; nobody makes larger ones in good faith.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// The most layers of an image: Docker makes at most 127.
pub const MAX_LAYERS: usize = 256;

/// How deep an index may be in an index.
pub(crate) const MAX_INDEX_DEPTH: u32 = 3;

#[cfg(test)]
mod tests;
