//! Layers: an OCI layer (a tar stream) becomes an EROFS image, and several such images one.
//! Nothing of a layer is ever unpacked on the host.

mod convert;
mod directories;
mod error;
mod limits;
mod merge;
mod path;
mod stream;
mod tar;
mod tree;

pub use convert::{Converted, convert};
pub use error::{LayerError, PathProblem};
pub use limits::Limits;
pub use merge::{Merged, merge};
