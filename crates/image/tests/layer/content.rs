//! Content of every size, with holes, compressed every way; and the diff ID.

use std::io::Write;
use std::ops::ControlFlow;

use image::layer::{LayerError, Limits, convert};
use sha2::{Digest, Sha256};

use crate::items::{Item, header, tar, with_content};
use crate::shown::{converted, refused_bytes, try_convert};

/// Bytes that differ from block to block.
fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i / 7 + i / 4096) as u8 | 1).collect()
}

#[test]
fn content_of_every_size_survives() {
    let sizes =
        [0, 1, 511, 512, 2047, 2048, 2049, 4095, 4096, 4097, 8192, 65_535, 262_144, 262_145, 1_000_003];
    let items: Vec<Item> = sizes
        .iter()
        .map(|size| Item::file(size.to_string(), noise(*size)).pax("SCHILY.xattr.user.x", "y"))
        .collect();
    let listing = converted(&items).list();
    for size in sizes {
        assert!(listing[size.to_string().as_bytes()].content == noise(size), "{size}");
    }
}

#[test]
fn the_diff_id_is_of_all_bytes_with_the_padding_after_the_end_mark() {
    let mut layer = tar(&[Item::file("a", "b")]);
    layer.extend(vec![0; 600_000]);
    let kept = try_convert(&layer, &Limits::default()).unwrap();
    assert_eq!(kept.converted.diff_id, <[u8; 32]>::from(Sha256::digest(&layer)));
    assert_eq!((kept.converted.tar_bytes, kept.converted.entries), (layer.len() as u64, 1));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn gzip_in_members_and_zstd_in_frames_give_what_plain_gives() {
    let layer = tar(&[Item::file("a", noise(700_000)), Item::directory("d")]);
    let plain = try_convert(&layer, &Limits::default()).unwrap();
    let (front, back) = layer.split_at(300_001);
    let members = [gzip(front), gzip(back)].concat();
    let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let frames = [frame(front), frame(back)].concat();
    let skippable = [b"\x50\x2a\x4d\x18\x03\0\0\0abc".as_slice(), &frame(&layer)].concat();
    for compressed in [gzip(&layer), members, frame(&layer), frames, skippable] {
        let kept = try_convert(&compressed, &Limits::default()).unwrap();
        assert!(kept.bytes() == plain.bytes());
        assert_eq!(kept.converted, plain.converted);
    }
}

#[test]
fn streams_cut_short_anywhere_are_refused() {
    let layer = tar(&[Item::file("a", noise(1000)), Item::hard_link("b", "a").pax("comment", "c")]);
    // One block of zeros is an end mark already.
    for end in (0..layer.len() - 512).step_by(64) {
        assert!(
            matches!(refused_bytes(&layer[..end]), LayerError::Truncated(at) if at == end as u64),
            "{end}"
        );
    }
    let gzip = gzip(&layer);
    let zstd = zstd::encode_all(&layer[..], 1).unwrap();
    for compressed in [gzip, zstd] {
        for end in 10..compressed.len() {
            assert!(matches!(refused_bytes(&compressed[..end]), LayerError::Decompress { .. }), "{end}");
        }
    }
}

#[test]
fn damaged_compression_is_told_from_a_failing_source() {
    struct Failing<'a>(&'a [u8]);
    impl std::io::Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() {
                return Err(std::io::Error::other("the cable"));
            }
            self.0.read(buffer)
        }
    }
    let mut compressed = gzip(&tar(&[Item::file("a", noise(9000))]));
    let half = compressed.len() / 2;
    let mut file = tempfile::tempfile().unwrap();
    let mut go_on = |_| ControlFlow::Continue(());
    let error = convert(Failing(&compressed[..half]), &mut file, &Limits::default(), &mut go_on).unwrap_err();
    assert!(matches!(error, LayerError::Read(_)), "{error:?}");
    compressed[half] ^= 0x55;
    assert!(matches!(refused_bytes(&compressed), LayerError::Decompress { compression: "gzip", .. }));
}

#[test]
fn what_is_no_layer_says_so() {
    assert!(matches!(refused_bytes(b"\xfd7zXZ\0 and more"), LayerError::Compression("xz")));
    assert!(matches!(refused_bytes(&[b'e'; 4096]), LayerError::NotTar));
    assert!(matches!(refused_bytes(b""), LayerError::Truncated(0)));
}

#[test]
fn cancelling_stops_a_conversion_and_progress_is_in_bytes_of_the_source() {
    let layer = tar(&[Item::file("big", noise(5 << 20))]);
    let mut file = tempfile::tempfile().unwrap();
    let mut heard = Vec::new();
    let mut listen = |bytes| {
        heard.push(bytes);
        ControlFlow::Continue(())
    };
    convert(&layer[..], &mut file, &Limits::default(), &mut listen).unwrap();
    assert!(heard.len() >= 5 && heard.is_sorted());
    assert_eq!(heard.last(), Some(&(layer.len() as u64)));
    let error = convert(&layer[..], &mut file, &Limits::default(), &mut |_| ControlFlow::Break(()));
    assert!(matches!(error, Err(LayerError::Cancelled)));
}

/// What the sparse files below are: 10,000 bytes with data at 512 and at 9000.
fn holey() -> (Vec<u8>, Vec<u8>) {
    let stored = noise(1000);
    let mut whole = vec![0; 10_000];
    whole[512..1012].copy_from_slice(&stored[..500]);
    whole[9000..9500].copy_from_slice(&stored[500..]);
    (stored, whole)
}

#[test]
fn old_gnu_sparse_files_are_filled_up() {
    let (stored, whole) = holey();
    let mut gnu = header(&Item::new(b'S', "sparse"), stored.len() as u64);
    let raw = gnu.as_mut_bytes();
    raw[257..265].copy_from_slice(b"ustar  \0");
    for (at, number) in
        [(386, 512), (398, 500), (410, 9000), (422, 500), (434, 10_000), (446, 0), (483, 10_000)]
    {
        raw[at..at + 12].copy_from_slice(format!("{number:011o}\0").as_bytes());
    }
    gnu.set_cksum();
    let mut layer = with_content(&gnu, &stored);
    layer.extend(tar(&[Item::file("next", "n")]));
    let listing = try_convert(&layer, &Limits::default()).unwrap().list();
    assert!(listing[&b"sparse"[..]].content == whole);
    assert_eq!(listing[&b"next"[..]].content, b"n");
}

#[test]
fn pax_sparse_files_of_all_versions_are_filled_up() {
    let (stored, whole) = holey();
    let named = |item: Item| item.pax("GNU.sparse.name", "sparse");
    let v00 = named(Item::file("GNUSparseFile.0/s", &stored))
        .pax("GNU.sparse.size", "10000")
        .pax("GNU.sparse.offset", "512")
        .pax("GNU.sparse.numbytes", "500")
        .pax("GNU.sparse.offset", "9000")
        .pax("GNU.sparse.numbytes", "500");
    let v01 = named(Item::file("GNUSparseFile.0/s", &stored))
        .pax("GNU.sparse.size", "10000")
        .pax("GNU.sparse.map", "512,500,9000,500");
    let mut content = b"2\n512\n500\n9000\n500\n".to_vec();
    content.resize(512, 0);
    content.extend(&stored);
    let v10 = named(Item::file("GNUSparseFile.0/s", content))
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.realsize", "10000");
    for item in [v00, v01, v10] {
        let listing = converted(&[item, Item::file("next", "n")]).list();
        assert_eq!(listing.len(), 3);
        assert!(listing[&b"sparse"[..]].content == whole);
    }
}

#[test]
fn files_beyond_4_gib_are_holes_on_the_host_too() {
    use std::os::unix::fs::MetadataExt;
    let size = 5_u64 << 30;
    let item = Item::file("huge", "end")
        .pax("GNU.sparse.size", size.to_string())
        .pax("GNU.sparse.map", format!("{},3", size - 3));
    let mut file = tempfile::tempfile().unwrap();
    let layer = tar(&[item]);
    convert(&layer[..], &mut file, &Limits::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    let image = image::erofs::Image::open(&file).unwrap();
    let mut found = None;
    let root = image.root().unwrap();
    image
        .entries(&root, |entry| {
            found = Some(entry.nid);
            ControlFlow::Break(())
        })
        .unwrap();
    let inode = image.inode(found.unwrap()).unwrap();
    let mut tail = [0; 8];
    assert_eq!(image.read_at(&inode, &mut tail, size - 5).unwrap(), 5);
    assert_eq!((inode.size, &tail[..5]), (size, &b"\0\0end"[..]));
    assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
}
