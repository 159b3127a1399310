//! How much a layer may ask of the host before it is refused.

/// Limits of one conversion or merge. Reaching one is an error of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the tar stream. Bounds time; large real layers have some 200,000. A merged image
    /// may have twice as many for each of its layers, since directories need not be entries.
    pub entries: u64,
    /// Bytes of the uncompressed tar stream, and likewise of the image with its holes: stops
    /// compression bombs and sparse files that are nothing but size.
    pub expanded_bytes: u64,
    /// Bytes of memory for names and directories, which are known only at the stream's end. With
    /// a decompressor's window (at most 32 MiB) and buffers it keeps a conversion below 64 MiB.
    pub metadata_bytes: u64,
    /// Bytes of a path (`PATH_MAX` of Linux).
    pub path_bytes: usize,
    /// Components of a path: bounds recursion in whatever walks the image.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 500_000,
            expanded_bytes: 64 << 30,
            metadata_bytes: 24 << 20,
            path_bytes: 4096,
            depth: 256,
        }
    }
}
