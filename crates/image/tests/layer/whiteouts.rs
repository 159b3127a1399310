//! Whiteouts in one layer's image, as overlayfs wants them.

use image::erofs::FileType;

use crate::items::Item;
use crate::shown::{Listing, converted};

const OPAQUE: &[u8] = b"trusted.overlay.opaque";

fn is_whiteout(listing: &Listing, path: &str) -> bool {
    let shown = &listing[path.as_bytes()];
    shown.kind == FileType::CharDevice && shown.device == Some((0, 0))
}

fn is_opaque(listing: &Listing, path: &str) -> bool {
    listing[path.as_bytes()].xattrs.get(OPAQUE).is_some_and(|value| value == b"y")
}

#[test]
fn a_whiteout_is_a_character_device_0_0_and_its_name_does_not_show() {
    let listing = converted(&[Item::file("d/.wh.gone", ""), Item::file("d/.wh.too", "")]).list();
    assert!(is_whiteout(&listing, "d/gone") && is_whiteout(&listing, "d/too"));
    assert_eq!(listing.len(), 4);
}

#[test]
fn an_opaque_directory_has_overlayfs_mark_in_whatever_order_it_comes() {
    let marker = Item::file("d/.wh..wh..opq", "");
    for items in [
        [Item::directory("d").mode(0o700), marker.clone(), Item::file("d/new", "")],
        [marker.clone(), Item::file("d/new", ""), Item::directory("d").mode(0o700)],
    ] {
        let listing = converted(&items).list();
        assert!(is_opaque(&listing, "d") && !is_opaque(&listing, ""));
        assert_eq!((listing[&b"d"[..]].mode, listing.len()), (0o700, 3));
    }
}

#[test]
fn a_whiteout_does_not_hide_its_own_layer() {
    for items in [
        [Item::file(".wh.f", ""), Item::file("f", "new"), Item::directory("x")],
        [Item::file("f", "new"), Item::file(".wh.f", ""), Item::directory("x")],
    ] {
        assert_eq!(converted(&items).list()[&b"f"[..]].content, b"new");
    }
}

#[test]
fn a_directory_in_place_of_what_was_deleted_begins_empty() {
    for items in [
        vec![Item::file(".wh.d", ""), Item::directory("d")],
        vec![Item::directory("d"), Item::file(".wh.d", "")],
        vec![Item::file(".wh.d", ""), Item::file("d/implied", "")],
        vec![Item::file("d", "a file first"), Item::directory("d")],
    ] {
        assert!(is_opaque(&converted(&items).list(), "d"), "{items:?}");
    }
}

#[test]
fn other_union_file_systems_own_files_are_left_out() {
    let listing = converted(&[Item::directory(".wh..wh.plnk"), Item::file(".wh..wh.plnk/1.2", "")]).list();
    assert_eq!(listing.len(), 1);
}
