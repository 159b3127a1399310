//! Imports of what is damaged, hostile or not an image. Each is an error, and leaves nothing.

use std::fs;
use std::io::{self, Cursor, Read};
use std::process::Stdio;

use api::{Explain, Kind};
use image::IngestError;
use image::document::DocumentError;
use image::import::{ArchiveError, ImportError, ImportOptions, Input};
use image::progress::Silent;
use image::store::{Cancel, Store};
use serde_json::json;
use tar::EntryType;
use tempfile::TempDir;

use crate::child;
use crate::example::{Compression, Example, compress, layers_in, leftovers, noise, tar_folder, tar_of};
use crate::import::{COMPRESSIONS, folder, import_bytes, import_with, tag};

/// Asserts that an import left no image and no layer.
fn assert_nothing(folder: &TempDir) {
    let store = folder.path().join("store");
    assert!(layers_in(&store).is_empty());
    assert_eq!(fs::read_dir(store.join("images")).unwrap().count(), 0);
}

fn fails(bytes: Vec<u8>) -> ImportError {
    let folder = folder();
    let error = import_bytes(&folder, bytes).unwrap_err();
    assert_nothing(&folder);
    error
}

#[test]
fn what_is_no_image_is_refused() {
    assert!(matches!(fails(vec![]), ImportError::Empty));
    for nonsense in [
        b"x".to_vec(),
        b"hello, this is a text\n".repeat(100),
        vec![0x1f, 0x8b],
        b"\x28\xb5\x2f\xfd".to_vec(),
    ] {
        let error = fails(nonsense);
        assert!(matches!(error.kind(), Kind::Corrupt | Kind::InvalidInput), "{error:?}");
        assert!(error.hint().is_some() || error.to_string().len() > 20);
    }
    assert_eq!(fails(compress(b"not a tar", Compression::Gzip)).kind(), fails(b"not a tar".to_vec()).kind());
    let folder = folder();
    for (path, kind) in [("nothing", Kind::NotFound), ("empty", Kind::Corrupt)] {
        fs::create_dir_all(folder.path().join("empty")).unwrap();
        let error = import_with(&folder, Input::Path(folder.path().join(path)), &tag("a")).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
    }
    let pinned = ImportOptions::new(format!("a@{}", image::digest::Digest::of(b"")).parse().unwrap());
    let error = import_with(&folder, Input::Stream(Box::new(io::empty())), &pinned).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidInput);
}

#[test]
fn every_truncation_is_noticed() {
    let folder = folder();
    let layout = folder.path().join("layout");
    Example::new(&[tar_of(&[("a", b"1")])], Compression::Plain).write_layout(&layout, "it");
    for whole in [tar_folder(&layout), tar_of(&[("etc/a", &[1; 5000]), ("etc/b", b"2")])] {
        let end = whole.len() - 1024;
        for compression in COMPRESSIONS {
            for cut in [1, 100, 512, 700, end / 2, end - 1, end] {
                let error = fails(compress(&whole[..cut], compression));
                assert_ne!(error.kind(), Kind::Internal, "{cut}: {error:?}");
            }
        }
        for compression in [Compression::Gzip, Compression::Zstd] {
            let packed = compress(&whole, compression);
            for cut in [5, packed.len() / 2, packed.len() - 1] {
                assert_eq!(fails(packed[..cut].to_vec()).kind(), Kind::Corrupt, "{cut}");
            }
        }
    }
}

#[test]
fn damaged_blobs_are_named() {
    let example = Example::new(&[noise("a", 100_000)], Compression::Gzip);
    for (blob, part) in
        [(&example.layers[0], "layer"), (&example.config, "config"), (&example.manifest, "manifest")]
    {
        let folder = folder();
        let layout = folder.path().join("layout");
        example.write_layout(&layout, "it");
        let path = layout.join("blobs/sha256").join(blob.digest().hex());
        let mut bytes = blob.bytes.clone();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = import_with(&folder, Input::Path(layout.clone()), &tag("a")).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{part}: {error:?}");
        assert_nothing(&folder);
        fs::remove_file(&path).unwrap();
        let error = import_with(&folder, Input::Path(layout), &tag("a")).unwrap_err();
        assert!(
            matches!(&error, ImportError::Missing(path) if path.contains(&blob.digest().hex())),
            "{error:?}"
        );
        assert_nothing(&folder);
    }
}

#[test]
fn a_blob_with_something_after_its_layer_is_refused() {
    let example = Example::small();
    let folder = folder();
    let layout = folder.path().join("layout");
    example.write_layout(&layout, "it");
    let mut bytes = example.layers[0].bytes.clone();
    // A whole further gzip member that decompresses to nothing: the diff ID stays the same.
    bytes.extend(compress(b"", Compression::Gzip));
    fs::write(layout.join("blobs/sha256").join(example.layers[0].digest().hex()), bytes).unwrap();
    let error = import_with(&folder, Input::Path(layout), &tag("a")).unwrap_err();
    assert!(matches!(error, ImportError::Layer(IngestError::Blob { .. })), "{error:?}");
    assert_nothing(&folder);
}

#[test]
fn documents_that_lie_are_refused() {
    let example = Example::small();
    let config = example.config.digest().hex();
    let docker = |manifest: serde_json::Value| {
        let manifest = manifest.to_string();
        let name = format!("{config}.json");
        fails(tar_of(&[
            ("manifest.json", manifest.as_bytes()),
            (name.as_str(), &example.config.bytes),
            ("layer.tar", b"no tar"),
            ("etc/passwd", b"no secret"),
        ]))
    };
    let config_name = format!("{config}.json");
    for (manifest, kind) in [
        (json!([]), Kind::Corrupt),
        (json!({}), Kind::Corrupt),
        (json!([{"Config": "nothing", "Layers": []}]), Kind::Corrupt),
        (json!([{"Config": "../../../etc/passwd", "Layers": []}]), Kind::Corrupt),
        (json!([{"Config": config_name, "Layers": []}]), Kind::Corrupt),
        (json!([{"Config": config_name, "Layers": ["a", "b"]}]), Kind::Corrupt),
        (json!([{"Config": config_name, "Layers": ["/etc/shadow"]}]), Kind::Corrupt),
        (json!([{"Config": config_name, "Layers": ["layer.tar"]}]), Kind::Corrupt),
    ] {
        let error = docker(manifest.clone());
        assert_eq!(error.kind(), kind, "{manifest}: {error:?}");
    }
    let other = Example::of_platform(&[tar_of(&[])], Compression::Plain, &"linux/s390x".parse().unwrap());
    let folder = folder();
    let layout = folder.path().join("layout");
    other.write_layout(&layout, "it");
    let error = import_with(&folder, Input::Path(layout), &tag("a")).unwrap_err();
    assert!(matches!(error, ImportError::Document(DocumentError::WrongPlatform { .. })), "{error:?}");
}

#[test]
fn names_and_links_of_an_archive_that_would_fill_memory_are_refused() {
    let long = "n/".repeat(500_000);
    for kind in [EntryType::Regular, EntryType::Symlink, EntryType::Link] {
        let mut builder = tar::Builder::new(Vec::new());
        // By its name it is looked up in, not converted as it comes.
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, "oci-layout", io::empty()).unwrap();
        header.set_entry_type(kind);
        for n in 0..20 {
            if kind == EntryType::Regular {
                builder.append_data(&mut header, format!("blobs/{n}/{long}"), io::empty()).unwrap();
            } else {
                builder.append_link(&mut header, format!("blobs/{n}"), &long).unwrap();
            }
        }
        let error = fails(compress(&builder.into_inner().unwrap(), Compression::Zstd));
        assert!(matches!(error, ImportError::Archive(ArchiveError::LongNames)), "{kind:?}");
        assert_eq!(error.kind(), Kind::LimitExceeded);
        assert_eq!(error.hint(), None, "it is not damaged");
    }
}

#[test]
fn documents_of_a_folder_that_are_no_files_are_refused() {
    let folder = folder();
    let layout = folder.path().join("layout");
    fs::create_dir_all(&layout).unwrap();
    let fifo = layout.join("index.json");
    crate::registry::output("mkfifo", &[fifo.to_str().unwrap()], "coreutils");
    let error = import_with(&folder, Input::Path(layout), &tag("a")).unwrap_err();
    assert!(matches!(error, ImportError::Open { .. }), "{error:?}");
}

#[test]
fn a_failing_source_is_told_as_such() {
    struct Fails(usize);
    impl Read for Fails {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("the cable is out"))?;
            buffer[..1].copy_from_slice(b"x");
            Ok(1)
        }
    }
    for after in [0, 3, 100, 2000] {
        let folder = folder();
        let error = import_with(&folder, Input::Stream(Box::new(Fails(after))), &tag("a")).unwrap_err();
        let mut source = std::error::Error::source(&error);
        let mut told = error.to_string();
        while let Some(error) = source {
            told += &error.to_string();
            source = error.source();
        }
        assert!(told.contains("the cable is out") || after >= 512, "{after}: {told}");
        assert_nothing(&folder);
    }
}

#[test]
fn a_cancelled_import_leaves_nothing() {
    let folder = folder();
    let store = Store::open(folder.path().join("store")).unwrap();
    let cancel = Cancel::default();
    cancel.cancel();
    let layout = folder.path().join("layout");
    Example::new(&[noise("a", 2 << 20)], Compression::Plain).write_layout(&layout, "it");
    let archive = compress(&tar_folder(&layout), Compression::Gzip);
    let root = noise("etc/a", 2 << 20);
    for input in [
        Input::Path(layout),
        Input::Stream(Box::new(Cursor::new(archive))),
        Input::Stream(Box::new(Cursor::new(root))),
    ] {
        let error = image::import::import(&store, input, &tag("a"), &Silent, &cancel).unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted, "{error:?}");
        assert_nothing(&folder);
        assert!(leftovers(&folder.path().join("store")).is_empty());
    }
}

#[test]
fn a_killed_import_leaves_nothing() {
    let folder = folder();
    let store = folder.path().join("store");
    let layout = folder.path().join("layout");
    Example::new(&[noise("a", 1 << 20)], Compression::Plain).write_layout(&layout, "it");
    // One that streams, one that is kept first; neither gets its end.
    for start in [noise("etc/a", 2 << 20), tar_folder(&layout)] {
        let mut command = child::command("import", &store, "-");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut input = process.stdin.take().unwrap();
        io::Write::write_all(&mut input, &start[..start.len() - 2048]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(process.try_wait().unwrap().is_none());
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(leftovers(&store).is_empty());
        assert_nothing(&folder);
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left() {
    let folder = folder();
    let root = folder.path().join("root.tar");
    fs::write(&root, noise("etc/a", 3 << 20)).unwrap();
    let layout = folder.path().join("layout");
    Example::new(&[noise("a", 3 << 20)], Compression::Plain).write_layout(&layout, "it");
    let archive = folder.path().join("archive.tar.gz");
    fs::write(&archive, compress(&tar_folder(&layout), Compression::Gzip)).unwrap();
    let small = folder.path().join("small");
    fs::create_dir(&small).unwrap();
    for input in [root, layout, archive] {
        let job = child::command("import", &small.join("store"), input.to_str().unwrap());
        let mut command = std::process::Command::new("unshare");
        let script = "mount -t tmpfs -o size=2m small \"$0\" && \"$@\"; status=$?; \
                      find \"$0\"/store -type f ! -path '*/claims/*' ! -name lock >&2; exit $status";
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(&small);
        command.arg(job.get_program()).args(job.get_args());
        command.envs(job.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let told = child::run(command).unwrap_err();
        assert!(told.contains("HostUnready") && told.contains("space"), "{told}");
        assert!(told.contains("No space left on device"), "{told}");
        let left = told.lines().filter(|line| line.starts_with(small.to_str().unwrap()));
        assert_eq!(left.count(), 0, "{told}");
    }
}
