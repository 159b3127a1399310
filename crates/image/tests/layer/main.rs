//! Layers become images: everything here is checked by reading the image back, and by
//! `fsck.erofs`.

#![expect(clippy::unwrap_used, reason = "a test fails by unwrapping, and says where")]

mod content;
mod damage;
mod hostile;
mod items;
mod merging;
mod metadata;
mod random;
mod shown;
mod whiteouts;
