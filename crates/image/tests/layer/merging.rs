//! Layers merged into one image show what overlayfs would.

use std::ops::ControlFlow;

use image::layer::{LayerError, Limits, merge};

use crate::items::Item;
use crate::shown::{converted, merged};

#[test]
fn higher_layers_replace_delete_and_add() {
    let listing = merged(&[
        converted(&[
            Item::directory("etc").mode(0o700),
            Item::file("etc/kept", "1"),
            Item::file("etc/changed", "old"),
            Item::file("etc/deleted", ""),
            Item::file("opaque/hidden", ""),
            Item::file("dir/inside", ""),
            Item::file("file", ""),
        ]),
        converted(&[
            Item::directory("etc").mode(0o751).owner(3, 4).pax("SCHILY.xattr.user.x", "y"),
            Item::file("etc/changed", "new"),
            Item::file("etc/.wh.deleted", ""),
            Item::file("etc/.wh.never-was", ""),
            Item::file("opaque/.wh..wh..opq", ""),
            Item::file("opaque/shown", ""),
            Item::file("dir", "a file now"),
            Item::file("file/inside", "a directory now"),
        ]),
    ]);
    let paths: Vec<&str> = listing.keys().map(|path| std::str::from_utf8(path).unwrap()).collect();
    let expected =
        ["", "dir", "etc", "etc/changed", "etc/kept", "file", "file/inside", "opaque", "opaque/shown"];
    assert_eq!(paths, expected);
    let etc = &listing[&b"etc"[..]];
    assert_eq!((etc.mode, etc.owner, etc.xattrs.len()), (0o751, (3, 4), 1));
    assert_eq!(listing[&b"etc/changed"[..]].content, b"new");
    assert!(listing[&b"opaque"[..]].xattrs.is_empty());
    // etc, file and opaque.
    assert_eq!(listing[&b""[..]].links, 5);
}

#[test]
fn a_deletion_between_two_directories_hides_the_lower_one() {
    let listing = merged(&[
        converted(&[Item::file("d/low", "")]),
        converted(&[Item::file(".wh.d", "")]),
        converted(&[Item::file("d/high", "")]),
    ]);
    let paths: Vec<&[u8]> = listing.keys().map(Vec::as_slice).collect();
    assert_eq!(paths, [&b""[..], b"d", b"d/high"]);
}

#[test]
fn hard_links_stay_together_and_count_what_is_left() {
    let listing = merged(&[
        converted(&[
            Item::file("a", "same"),
            Item::hard_link("b", "a"),
            Item::hard_link("d/c", "a"),
            Item::file("x", "one"),
            Item::hard_link("y", "x"),
        ]),
        converted(&[Item::file(".wh.b", ""), Item::file("y", "own")]),
    ]);
    assert_eq!((listing[&b"a"[..]].links, listing[&b"d/c"[..]].links), (2, 2));
    assert_eq!((listing[&b"x"[..]].links, listing[&b"y"[..]].content.as_slice()), (1, &b"own"[..]));
}

#[test]
fn a_root_that_is_opaque_hides_all_below() {
    let listing = merged(&[
        converted(&[Item::file("old", "")]),
        converted(&[Item::file(".wh..wh..opq", ""), Item::file("new", "")]),
    ]);
    let paths: Vec<&[u8]> = listing.keys().map(Vec::as_slice).collect();
    assert_eq!(paths, [&b""[..], b"new"]);
}

#[test]
fn the_same_layers_merge_to_the_same_bytes() {
    let layers = [
        converted(&[Item::file("a", vec![7; 100_000]), Item::hard_link("b", "a"), Item::hard_link("c", "a")]),
        converted(&[Item::symlink("s", "a"), Item::file("e", "")]),
    ];
    let files = layers.each_ref().map(|layer| layer.file.reopen().unwrap());
    let bytes = || {
        let mut out = tempfile::NamedTempFile::new().unwrap();
        merge(&files, out.as_file_mut(), &Limits::default(), &mut |_| ControlFlow::Continue(())).unwrap();
        std::fs::read(out.path()).unwrap()
    };
    assert!(bytes() == bytes());
}

#[test]
fn limits_and_cancelling_stop_a_merge() {
    let layers = [converted(&[Item::file("a", vec![1; 3 << 20]), Item::file("b", ""), Item::file("c", "")])];
    let files = layers.each_ref().map(|layer| layer.file.reopen().unwrap());
    let attempt = |limits: &Limits, answer| {
        merge(&files, &mut tempfile::tempfile().unwrap(), limits, &mut |_| answer).unwrap_err()
    };
    let few = Limits { entries: 1, ..Limits::default() };
    assert!(matches!(attempt(&few, ControlFlow::Continue(())), LayerError::TooManyEntries(2)));
    let little = Limits { metadata_bytes: 30, ..Limits::default() };
    assert!(matches!(attempt(&little, ControlFlow::Continue(())), LayerError::TooMuchMetadata(30)));
    let small = Limits { expanded_bytes: 1 << 20, ..Limits::default() };
    assert!(matches!(attempt(&small, ControlFlow::Continue(())), LayerError::Write(_)));
    assert!(matches!(attempt(&Limits::default(), ControlFlow::Break(())), LayerError::Cancelled));
    let nothing = merge(&[], &mut tempfile::tempfile().unwrap(), &few, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(nothing, Err(LayerError::NoLayers)));
}

#[test]
fn empty_files_that_are_nothing_but_attributes_do_not_keep_a_merge_from_being_cancelled() {
    let files: Vec<Item> = (0..20)
        .map(|n| Item::file(n.to_string(), "").pax("SCHILY.xattr.user.x", vec![b'x'; 60_000]))
        .collect();
    let layer = converted(&files).file.reopen().unwrap();
    let mut out = tempfile::tempfile().unwrap();
    let stopped = merge(&[layer], &mut out, &Limits::default(), &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(LayerError::Cancelled)), "{stopped:?}");
}
