//! Tars as Docker writes them, and as nobody should.

use std::io::Write;

use proptest::prelude::*;

use super::*;

fn entry(kind: EntryType, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_path(name).unwrap();
    if !link.is_empty() {
        header.set_link_name(link).unwrap();
    }
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn content(archive: &Archive<'_>, path: &str) -> Option<Vec<u8>> {
    let mut content = archive.open(path).unwrap()?;
    let mut bytes = Vec::new();
    content.bytes.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, content.length);
    Some(bytes)
}

#[test]
fn files_are_found_through_links_within_the_archive() {
    let long = format!("{}/layer.tar", "x".repeat(120));
    let pax = "17 comment=hello\n".to_owned() + &format!("{} path={long}\n", 10 + long.len());
    let tar = [
        entry(EntryType::Directory, "./", "", b""),
        entry(EntryType::Regular, "./a/layer.tar", "", b"old"),
        entry(EntryType::Regular, "a/layer.tar", "", b"lower"),
        entry(EntryType::Symlink, "b/layer.tar", "../a/layer.tar", b""),
        entry(EntryType::Link, "c", "b/layer.tar", b""),
        entry(EntryType::XHeader, "pax", "", pax.as_bytes()),
        entry(EntryType::Regular, "short", "", &[7; 1000]),
        entry(EntryType::Symlink, "loop", "loop", b""),
        entry(EntryType::Symlink, "out", "../../etc/passwd", b""),
        entry(EntryType::Symlink, "absolute", "/etc/passwd", b""),
        vec![0; 1024],
    ];
    let file = file(&tar.concat());
    let archive = Archive::index(&file).unwrap();
    for path in ["a/layer.tar", "/a/./layer.tar", "b/layer.tar", "c"] {
        assert_eq!(content(&archive, path).unwrap(), b"lower", "{path}");
    }
    assert_eq!(content(&archive, &long).unwrap(), [7; 1000]);
    for path in ["", "a", "nothing", "../a/layer.tar", "absolute"] {
        assert!(content(&archive, path).is_none(), "{path}");
    }
    for path in ["loop", "out"] {
        let refused = archive.open(path).map(|_| ());
        assert!(matches!(refused, Err(ImportError::Archive(ArchiveError::Link(_)))), "{path}");
    }
}

#[test]
fn damage_is_an_error() {
    let tar =
        [entry(EntryType::Regular, "a", "", &[1; 600]), entry(EntryType::Regular, "b", "", b"")].concat();
    let index = |bytes: &[u8]| Archive::index(&file(bytes)).map(|_| ());
    for length in [1, 511, 513, 1200, 1536, 1600, tar.len()] {
        assert!(matches!(index(&tar[..length]), Err(ArchiveError::Truncated)), "{length}");
    }
    let mut damaged = tar.clone();
    damaged[0] ^= 1;
    assert!(matches!(index(&damaged), Err(ArchiveError::Malformed(0))));
    let mut huge = entry(EntryType::GNULongName, "x", "", b"");
    let mut header = Header::from_byte_slice(&huge).clone();
    header.set_size(1 << 40);
    header.set_cksum();
    huge[..512].copy_from_slice(header.as_bytes());
    assert!(matches!(index(&huge), Err(ArchiveError::Malformed(_))));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), fix in any::<bool>()) {
        if fix && bytes.len() >= 512 {
            let mut header = Header::from_byte_slice(&bytes[..512]).clone();
            header.set_cksum();
            bytes[..512].copy_from_slice(header.as_bytes());
        }
        let mut members = Members::of(bytes.as_slice());
        while let Ok(Some(_)) = members.next() {}
    }
}
