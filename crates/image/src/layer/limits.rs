//! How much a layer may ask of the host before it is refused.

/// Limits of one conversion or merge; each has its own error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the tar stream.
    pub entries: u64,
    /// Bytes of the uncompressed tar stream, and of the image written, holes included.
    pub expanded_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 500_000, expanded_bytes: 64 << 30 }
    }
}
