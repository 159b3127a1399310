//! Names, attributes and types are in the image exactly as in the tar stream.

use image::erofs::{FileType, Timestamp};

use crate::items::{Item, tar, with_content};
use crate::shown::{converted, refused, try_convert};

#[test]
fn every_type_keeps_mode_owner_and_time() {
    let image = converted(&[
        Item::directory("./").mode(0o700).owner(1, 2),
        Item::file("file", "content").mode(0o6755).owner(1000, 65534),
        Item::directory("tmp").mode(0o1777),
        Item::symlink("link", "../anywhere/at all").mode(0o777),
        Item::new(b'6', "fifo").mode(0o600),
        Item::char_device("tty", 5, 1).mode(0o620).owner(0, 5),
        Item::new(b'4', "disk").mode(0o660),
        Item::new(b'7', "contiguous"),
    ]);
    let listing = image.list();
    let kinds: Vec<(&str, FileType, u16)> = listing
        .iter()
        .map(|(path, shown)| (std::str::from_utf8(path).unwrap(), shown.kind, shown.mode))
        .collect();
    let expected = [
        ("", FileType::Directory, 0o700),
        ("contiguous", FileType::Regular, 0o644),
        ("disk", FileType::BlockDevice, 0o660),
        ("fifo", FileType::Fifo, 0o600),
        ("file", FileType::Regular, 0o6755),
        ("link", FileType::Symlink, 0o777),
        ("tmp", FileType::Directory, 0o1777),
        ("tty", FileType::CharDevice, 0o620),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(listing[&b""[..]].owner, (1, 2));
    assert_eq!(listing[&b""[..]].links, 3);
    assert_eq!(listing[&b"file"[..]].owner, (1000, 65534));
    assert_eq!(listing[&b"file"[..]].content, b"content");
    assert_eq!(listing[&b"file"[..]].mtime, Timestamp { seconds: 1_700_000_000, nanos: 0 });
    assert_eq!(listing[&b"link"[..]].content, b"../anywhere/at all");
    assert_eq!(listing[&b"tty"[..]].device, Some((5, 1)));
}

#[test]
fn pax_headers_override_what_a_header_has_no_room_for() {
    let name = [b"d/".as_slice(), &[b'n'; 255], b"/\xff\xfe not UTF-8"].concat();
    let item = Item::file(&name, "x")
        .pax("uid", "4294967294")
        .pax("gid", "3000000000")
        .pax("mtime", "-1.25")
        .pax("comment", "of no consequence");
    let listing = converted(&[item, Item::file("next", "")]).list();
    let shown = &listing[&name];
    assert_eq!(shown.owner, (4_294_967_294, 3_000_000_000));
    assert_eq!(shown.mtime, Timestamp { seconds: -2, nanos: 750_000_000 });
    // A pax header is of one entry only.
    assert_eq!(listing[&b"next"[..]].owner, (0, 0));
}

#[test]
fn xattrs_keep_their_bytes_and_overlayfs_own_are_left_out() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, b'=', b'\n', 0, 0, 0, 0, 0, 0];
    let item = Item::file("ping", "x")
        .pax("SCHILY.xattr.security.capability", capability)
        .pax("SCHILY.xattr.user.big", "taken back")
        .pax("SCHILY.xattr.user.big", [b'b'; 9000])
        .pax("SCHILY.xattr.trusted.overlay.redirect", "/etc")
        .pax("SCHILY.xattr.com.apple.provenance", "x");
    let listing = converted(&[item, Item::directory("d").pax("SCHILY.xattr.user.d", "y")]).list();
    let xattrs: Vec<(&[u8], &[u8])> =
        listing[&b"ping"[..]].xattrs.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    assert_eq!(xattrs, [(&b"security.capability"[..], &capability[..]), (b"user.big", &[b'b'; 9000])]);
    assert_eq!(listing[&b"d"[..]].xattrs[&b"user.d"[..]], b"y");
}

#[test]
fn gnu_long_names_and_links_and_version_7_directories_are_understood() {
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(200));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o600);
    builder.append_data(&mut header, &long, &b"data"[..]).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "link", &long).unwrap();
    let mut old = Item::new(0, "old/").bytes();
    old.extend(builder.into_inner().unwrap());

    let listing = try_convert(&old, &image::layer::Limits::default()).unwrap().list();
    assert_eq!(listing[long.as_bytes()].content, b"data");
    assert_eq!(listing[&b"link"[..]].content, long.as_bytes());
    assert_eq!(listing[&b"old"[..]].kind, FileType::Directory);
}

#[test]
fn ustar_prefixes_and_global_headers_are_understood() {
    let mut header = tar::Header::new_ustar();
    header.set_path(format!("{}/{}", "p".repeat(120), "n".repeat(90))).unwrap();
    header.set_size(0);
    header.set_mode(0o640);
    header.set_cksum();
    let mut layer =
        with_content(&crate::items::header(&Item::new(b'g', "global"), 20), b"20 comment=by git...");
    layer.extend(with_content(&header, b""));
    layer.extend(tar(&[]));
    let listing = try_convert(&layer, &image::layer::Limits::default()).unwrap().list();
    let path = format!("{}/{}", "p".repeat(120), "n".repeat(90));
    assert_eq!(listing[path.as_bytes()].mode, 0o640);
}

#[test]
fn parents_that_no_entry_describes_are_implied_and_later_described() {
    let listing =
        converted(&[Item::file("/a/b/c", ""), Item::directory("./a/").mode(0o711).owner(7, 8)]).list();
    let paths: Vec<&[u8]> = listing.keys().map(Vec::as_slice).collect();
    assert_eq!(paths, [&b""[..], b"a", b"a/b", b"a/b/c"]);
    assert_eq!((listing[&b"a"[..]].mode, listing[&b"a"[..]].owner), (0o711, (7, 8)));
    assert_eq!((listing[&b"a/b"[..]].mode, listing[&b"a/b"[..]].owner), (0o755, (0, 0)));
}

#[test]
fn the_last_entry_of_a_path_counts() {
    let listing = converted(&[
        Item::file("f", "first"),
        Item::hard_link("kept", "f"),
        Item::file("f", "second"),
        Item::directory("d"),
        Item::file("d/gone", ""),
        Item::file("d", "now a file"),
        Item::file("e", "now a directory"),
        Item::directory("e"),
        Item::file("e/inside", ""),
    ])
    .list();
    let paths: Vec<&[u8]> = listing.keys().map(Vec::as_slice).collect();
    assert_eq!(paths, [&b""[..], b"d", b"e", b"e/inside", b"f", b"kept"]);
    assert_eq!(listing[&b"f"[..]].content, b"second");
    assert_eq!((listing[&b"kept"[..]].content.as_slice(), listing[&b"kept"[..]].links), (&b"first"[..], 1));
    assert_eq!(listing[&b"d"[..]].content, b"now a file");
}

#[test]
fn hard_links_share_an_inode_and_are_counted() {
    let image = converted(&[
        Item::file("a", "shared"),
        Item::hard_link("b", "./a"),
        Item::hard_link("d/c", "/b"),
        Item::symlink("s", "a"),
        Item::hard_link("t", "s"),
    ]);
    let listing = image.list();
    for path in [&b"a"[..], b"b", b"d/c"] {
        assert_eq!((listing[path].content.as_slice(), listing[path].links), (&b"shared"[..], 3));
    }
    assert_eq!((listing[&b"t"[..]].kind, listing[&b"t"[..]].links), (FileType::Symlink, 2));
}

#[test]
fn big_directories_are_sorted_for_the_kernel() {
    let items: Vec<Item> = (0..20_000).map(|n| Item::file(format!("big/{n}"), "")).collect();
    let listing = converted(&items).list();
    assert_eq!(listing.len(), 20_002);
    assert_eq!(listing[&b"big"[..]].links, 2);
}

#[test]
fn the_same_layer_gives_the_same_image() {
    let items: Vec<Item> = (0..500)
        .flat_map(|n| {
            let file = Item::file(format!("d{}/f{n}", n % 7), vec![b'x'; n * 37]);
            [
                file.pax("SCHILY.xattr.user.n", n.to_string()),
                Item::hard_link(format!("l{n}"), format!("d{}/f{n}", n % 7)),
            ]
        })
        .collect();
    assert!(converted(&items).bytes() == converted(&items).bytes());
}

#[test]
fn the_root_has_attributes_too_but_not_without_end() {
    let root = |length| Item::directory("/").pax("SCHILY.xattr.user.r", vec![b'r'; length]);
    assert_eq!(converted(&[root(2000)]).list()[&b""[..]].xattrs.len(), 1);
    let error = refused(&[root(4000)]);
    assert!(error.to_string().contains("root directory"), "{error}");
}
