//! Layers made to harm the host or each other: security.md, row 17. Each is refused with an error
//! that says which entry and why, or does no harm.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use api::{Explain, Kind};
use image::layer::{LayerError, Limits, PathProblem, convert};

use crate::items::{Item, header, tar, with_content};
use crate::shown::{converted, list, refused, refused_bytes, try_convert};

fn problem(items: &[Item]) -> PathProblem {
    match refused(items) {
        LayerError::Path { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_path_that_leads_upwards_is_refused() {
    for path in ["../etc/passwd", "a/../../b", "/..", "a/.."] {
        assert_eq!(problem(&[Item::file(path, "")]), PathProblem::Upwards, "{path}");
    }
    assert_eq!(problem(&[Item::file("a", ""), Item::hard_link("b", "../a")]), PathProblem::Upwards);
    assert_eq!(problem(&[Item::file("x", "").pax("path", "a/../../b")]), PathProblem::Upwards);
}

#[test]
fn an_absolute_path_stays_in_the_image() {
    assert!(converted(&[Item::file("/etc/passwd", "x")]).list().contains_key(&b"etc/passwd"[..]));
}

#[test]
fn names_with_nul_or_too_long_are_refused() {
    assert_eq!(problem(&[Item::file("x", "").pax("path", "a\0b")]), PathProblem::Nul);
    assert_eq!(problem(&[Item::file(vec![b'n'; 256], "")]), PathProblem::NameTooLong);
    assert_eq!(problem(&[Item::file("n/".repeat(2049), "")]), PathProblem::TooLong(4096));
    assert_eq!(problem(&[Item::file("n/".repeat(257), "")]), PathProblem::TooDeep(256));
    assert_eq!(problem(&[Item::new(b'0', "")]), PathProblem::Empty);
}

#[test]
fn an_entry_beneath_a_symbolic_link_is_refused() {
    for target in ["/etc", "../../..", "d"] {
        let error = refused(&[Item::directory("d"), Item::symlink("l", target), Item::file("l/passwd", "")]);
        match error {
            LayerError::Beneath { path, parent, what } => {
                assert_eq!((&path[..], &parent[..], what), ("l/passwd", "l", "a symbolic link"));
            }
            other => panic!("{other:?}"),
        }
    }
    let through_file = refused(&[Item::file("f", ""), Item::directory("f/d")]);
    assert!(matches!(through_file, LayerError::Beneath { what: "a file", .. }));
}

#[test]
fn a_hard_link_through_a_symbolic_link_or_to_nothing_or_to_a_directory_is_refused() {
    let through =
        [Item::directory("d"), Item::file("d/f", ""), Item::symlink("l", "d"), Item::hard_link("h", "l/f")];
    let later = [Item::hard_link("h", "f"), Item::file("f", "")];
    let nothing = [Item::hard_link("h", "f")];
    let directory = [Item::directory("f"), Item::hard_link("h", "f")];
    for items in [&through[..], &later, &nothing, &directory] {
        let error = refused(items);
        assert!(matches!(&error, LayerError::HardLink { path, .. } if path == "h"), "{error:?}");
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.hint().is_some());
    }
    let text = refused(&nothing).to_string();
    assert!(text.contains("\"h\"") && text.contains("\"f\""), "{text}");
}

#[test]
fn a_symbolic_link_out_of_the_image_is_just_text() {
    let listing = converted(&[Item::symlink("l", "/../../etc/shadow")]).list();
    assert_eq!(listing[&b"l"[..]].content, b"/../../etc/shadow");
}

#[test]
fn a_device_node_exists_in_the_image_only() {
    let listing = converted(&[Item::char_device("mem", 1, 1).mode(0o666)]).list();
    assert_eq!(listing[&b"mem"[..]].device, Some((1, 1)));
    let error = refused(&[Item::char_device("d", 4096, 0)]);
    assert!(matches!(error, LayerError::Write(_)), "{error:?}");
}

#[test]
fn the_root_cannot_be_replaced() {
    for item in [Item::symlink("./", "/host"), Item::file("/", ""), Item::new(b'6', ".")] {
        assert_eq!(problem(&[item]), PathProblem::Root);
    }
}

#[test]
fn a_whiteout_of_nothing_or_used_as_a_directory_is_refused() {
    for path in ["d/.wh.", ".wh..", ".wh...", ".wh.a/b"] {
        assert_eq!(problem(&[Item::file(path, "")]), PathProblem::Whiteout, "{path}");
    }
}

#[test]
fn a_name_cannot_write_to_the_terminal() {
    let error = refused(&[Item::file("\x1b[2J/../x", "")]).to_string();
    assert!(!error.contains('\x1b'), "{error}");
}

#[test]
fn more_entries_than_allowed_are_refused() {
    let limits = Limits { entries: 10, ..Limits::default() };
    let items: Vec<Item> = (0..11).map(|_| Item::file("same", "")).collect();
    assert!(try_convert(&tar(&items[..10]), &limits).is_ok());
    let error = try_convert(&tar(&items), &limits).map(|_| ()).unwrap_err();
    assert!(matches!(error, LayerError::TooManyEntries(10)));
    assert_eq!(error.kind(), Kind::LimitExceeded);
}

#[test]
fn names_that_would_fill_memory_are_refused() {
    let limits = Limits { metadata_bytes: 20_000, ..Limits::default() };
    let items: Vec<Item> = (0..100).map(|n| Item::file(format!("{n:0>200}"), "")).collect();
    let error = try_convert(&tar(&items), &limits).map(|_| ()).unwrap_err();
    assert!(matches!(error, LayerError::TooMuchMetadata(20_000)), "{error:?}");
}

#[test]
fn a_compression_bomb_is_refused() {
    let limits = Limits { expanded_bytes: 10 << 20, ..Limits::default() };
    let bomb = tar(&[Item::file("zeros", vec![0; 11 << 20])]);
    let compressed = zstd::encode_all(&bomb[..], 1).unwrap();
    assert!(compressed.len() < 10_000);
    let error = try_convert(&compressed, &limits).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::LimitExceeded);
}

#[test]
fn a_bomb_after_the_end_mark_is_refused() {
    let limits = Limits { expanded_bytes: 1 << 20, ..Limits::default() };
    let mut layer = tar(&[]);
    layer.extend(vec![0; 2 << 20]);
    let error = try_convert(&layer, &limits).map(|_| ()).unwrap_err();
    assert!(matches!(error, LayerError::TooLarge(1_048_576)));
}

#[test]
fn a_sparse_file_that_is_nothing_but_size_is_refused() {
    for size in [1 << 40, u64::MAX] {
        let item = Item::file("s", "").pax("GNU.sparse.size", size.to_string()).pax("GNU.sparse.map", "0,0");
        assert_eq!(refused(&[item]).kind(), Kind::LimitExceeded);
    }
}

#[test]
fn a_sparse_map_that_lies_is_refused() {
    for (size, map) in [
        ("10", "0,11"),
        ("10", "5,5,0,6"),
        ("10", "0,5"),
        ("10", "18446744073709551615,11"),
        ("10", "0"),
        ("10", "x,1"),
    ] {
        let item = Item::file("s", "elevenbytes").pax("GNU.sparse.size", size).pax("GNU.sparse.map", map);
        assert!(matches!(refused(&[item]), LayerError::Malformed { .. }), "{map}");
    }
    let endless =
        Item::file("s", vec![b'9'; 2048]).pax("GNU.sparse.major", "1").pax("GNU.sparse.realsize", "10");
    assert!(matches!(refused(&[endless]), LayerError::Malformed { .. }));
}

#[test]
fn headers_that_would_fill_memory_are_refused() {
    let giant = with_content(&header(&Item::new(b'L', "long"), 1 << 40), b"");
    assert!(matches!(refused_bytes(&giant), LayerError::Malformed { offset: 0, .. }));
    // Many small ones before one entry are no way around it.
    let name = vec![b'n'; 400_000];
    let pax = |n: usize| with_content(&header(&Item::new(b'L', format!("{n}")), name.len() as u64), &name);
    let many: Vec<u8> = (0..3).flat_map(pax).collect();
    assert!(matches!(refused_bytes(&many), LayerError::Malformed { .. }));
}

#[test]
fn malformed_headers_and_unknown_types_are_refused() {
    let mut wrong = tar(&[Item::file("a", ""), Item::file("b", "")]);
    wrong[512] ^= 1;
    assert!(matches!(refused_bytes(&wrong), LayerError::Malformed { offset: 512, .. }));
    assert!(matches!(refused(&[Item::new(b'V', "volume")]), LayerError::EntryType { kind: 'V', .. }));
    assert!(matches!(refused(&[Item::symlink("l", "")]), LayerError::Malformed { .. }));
    let mut middle = tar(&[Item::file("a", "")]);
    middle.truncate(1024);
    middle.extend(tar(&[Item::file("hidden", "")]));
    assert!(matches!(refused_bytes(&middle), LayerError::Malformed { .. }));
}

#[test]
fn attributes_too_large_for_an_inode_are_refused_with_their_name() {
    let big = Item::file("f", "").pax("SCHILY.xattr.user.big", vec![0; 65_536]);
    match refused(&[big]) {
        LayerError::Xattr { path, name, .. } => assert_eq!((&path[..], &name[..]), ("f", "user.big")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_with_as_many_attributes_as_fit_does_not_stop_the_conversion() {
    let named = |item: Item, n| item.pax(&format!("SCHILY.xattr.user.{n:04x}"), "");
    let many = (0..30_000).fold(Item::file("many", ""), named);
    let twice = (0..15_000).chain(0..15_000).fold(Item::file("twice", ""), named);
    let layer = tar(&[many, twice]);
    let mut out = tempfile::tempfile().unwrap();
    let started = Instant::now();
    convert(&layer[..], &mut out, &Limits::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    // It takes a tenth of a second, but minutes if each name is looked for among all before it.
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let image = list(&out);
    assert_eq!(image[&b"many"[..]].xattrs.len(), 30_000);
    assert_eq!(image[&b"twice"[..]].xattrs.len(), 15_000);
}
