//! One request of a guest: what is asked of whom, whether it may, and what is sent in its place.

pub(crate) mod query;

use http::{HeaderMap, Method};

/// What rules look at and change of a request. Placeholders are in it, never values.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
}
