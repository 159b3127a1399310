//! OCI images: references, the registry, layers as EROFS images, the content store.

pub mod erofs;
pub mod layer;
