//! Cached images that have been damaged: noticed where they can be, never a panic, never endless.

use std::io::{Seek, Write};
use std::ops::ControlFlow;

use image::erofs::{Image, ImageError};
use image::layer::{Limits, merge};
use proptest::prelude::*;

use crate::items::{Item, tar};
use crate::shown::{Kept, converted, try_convert};

fn sample() -> Kept {
    let mut items = vec![
        Item::file("d/e/f", vec![1; 5000]).pax("SCHILY.xattr.user.x", "value"),
        Item::hard_link("h", "d/e/f"),
        Item::symlink("s", "target"),
        Item::file("d/.wh.w", ""),
        Item::char_device("c", 1, 3),
    ];
    items.extend((0..300).map(|n| Item::file(format!("many/{n}"), "small")));
    converted(&items)
}

fn with(bytes: &[u8]) -> std::fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_damaged_first_block_is_noticed() {
    let bytes = sample().bytes();
    for offset in [1024, 1028, 1040, 1150, 1200, 4095] {
        let mut damaged = bytes.clone();
        damaged[offset] ^= 4;
        let file = with(&damaged);
        assert!(matches!(Image::open(&file), Err(ImageError::Superblock)), "offset {offset}");
    }
}

#[test]
fn an_image_cut_short_or_too_long_is_noticed() {
    let mut bytes = sample().bytes();
    bytes.push(0);
    assert!(matches!(Image::open(&with(&bytes)), Err(ImageError::Length { .. })));
    bytes.truncate(bytes.len() - 4097);
    assert!(matches!(Image::open(&with(&bytes)), Err(ImageError::Length { .. })));
    assert!(matches!(Image::open(&with(&bytes[..100])), Err(ImageError::Superblock)));
}

/// Recomputes the checksum of every block that could be a header.
fn with_checksums(mut layer: Vec<u8>) -> Vec<u8> {
    for block in layer.as_chunks_mut::<512>().0.iter_mut().filter(|block| **block != [0; 512]) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    layer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_in_a_layer_gives_an_error_or_a_sound_image(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12)
    ) {
        let mut layer = tar(&[
            Item::file("d/f", vec![1; 600]).pax("SCHILY.xattr.user.x", "value").pax("mtime", "1.5"),
            Item::hard_link("h", "d/f"),
            Item::file("s", "elevenbytes").pax("GNU.sparse.size", "9000").pax("GNU.sparse.map", "0,5,8000,6"),
            Item::symlink("l", "target"),
            Item::file("d/.wh.w", ""),
        ]);
        for (at, value) in damage {
            let at = at.index(layer.len());
            layer[at] = value;
        }
        let limits = Limits { expanded_bytes: 64 << 20, ..Limits::default() };
        if let Ok(image) = try_convert(&with_checksums(layer), &limits) {
            image.list();
        }
    }

    #[test]
    fn damage_anywhere_gives_an_error_or_another_image(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)
    ) {
        let mut bytes = sample().bytes();
        let length = bytes.len() - 4096;
        for (at, value) in damage {
            bytes[4096 + at.index(length)] = value;
        }
        let limits = Limits { entries: 5000, expanded_bytes: 64 << 20, ..Limits::default() };
        let mut out = tempfile::tempfile().unwrap();
        let merged = merge(&[with(&bytes)], &mut out, &limits, &mut |_| ControlFlow::Continue(()));
        if merged.is_ok() {
            prop_assert!(Image::open(&out).is_ok());
        }
    }
}
