//! Layers from a hostile registry or archive: an error, or an image that can be read again.

#![no_main]

use std::fs::File;
use std::ops::ControlFlow;

use image::layer::{Limits, convert, merge};
use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};

fn file() -> File {
    memfd_create("image", MemfdFlags::CLOEXEC).expect("descriptors and memory are there").into()
}

fuzz_target!(|layer: &[u8]| {
    // Small enough to be reached by inputs of a few hundred bytes.
    let limits = Limits { entries: 100, expanded_bytes: 1 << 20, depth: 16, ..Limits::default() };
    let mut image = file();
    let Ok(converted) = convert(layer, &mut image, &limits, &mut |_| ControlFlow::Continue(())) else {
        return;
    };
    assert!(converted.entries <= limits.entries && converted.tar_bytes <= limits.expanded_bytes);
    assert_eq!(image.metadata().expect("it is open").len(), converted.image_bytes);
    let merged = merge(&[image], &mut file(), &Limits::default(), &mut |_| ControlFlow::Continue(()));
    assert!(merged.is_ok(), "what was converted cannot be read: {merged:?}");
});
