//! Imports of everything that tools write.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use api::image::ImageConfig;
use image::digest::Digest;
use image::import::{ImportError, ImportOptions, Input};
use image::progress::Silent;
use image::store::{Cancel, ImageRecord, Source, Store};
use tempfile::TempDir;

use crate::example::{
    Compression, Example, compress, layers_in, leftovers, tar_folder, tar_of, write_layout,
};
use crate::registry::output;

pub(crate) const COMPRESSIONS: [Compression; 3] = [Compression::Plain, Compression::Gzip, Compression::Zstd];

/// A folder for a test, with a store in it.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn import_with(
    folder: &TempDir,
    input: Input,
    options: &ImportOptions,
) -> Result<ImageRecord, ImportError> {
    let store = Store::open(folder.path().join("store")).unwrap();
    let imported = image::import::import(&store, input, options, &Silent, &Cancel::default());
    assert!(leftovers(&folder.path().join("store")).is_empty());
    imported
}

pub(crate) fn import_bytes(folder: &TempDir, bytes: Vec<u8>) -> Result<ImageRecord, ImportError> {
    import_with(folder, Input::Stream(Box::new(Cursor::new(bytes))), &tag("imported"))
}

pub(crate) fn tag(name: &str) -> ImportOptions {
    ImportOptions::new(name.parse().unwrap())
}

/// An archive that `skopeo` makes of a layout.
fn archive(folder: &TempDir, layout: &Path, name: &str, kind: &str, suffix: &str) -> Vec<u8> {
    let path = folder.path().join(format!("{kind}.tar"));
    let _ = fs::remove_file(&path);
    let source = format!("oci:{}:{name}", layout.display());
    let target = format!("{kind}:{}{suffix}", path.display());
    output("skopeo", &["--insecure-policy", "copy", "-q", &source, &target], "skopeo");
    fs::read(path).unwrap()
}

/// Imports an archive in every way it can come in, and checks the image.
fn check_archive(folder: &TempDir, bytes: &[u8], example: &Example) {
    for compression in COMPRESSIONS {
        let packed = compress(bytes, compression);
        let path = folder.path().join("packed");
        fs::write(&path, &packed).unwrap();
        for input in [Input::Path(path), Input::Stream(Box::new(Cursor::new(packed)))] {
            let _ = fs::remove_dir_all(folder.path().join("store"));
            let image = import_with(folder, input, &tag("app:1")).unwrap();
            assert_eq!(image.layers, example.diff_ids);
            assert_eq!(image.config.user, "7:8");
            assert_eq!(image.source, Source::Import);
            assert_eq!(image.tag.familiar(), "app:1");
            assert_eq!(layers_in(&folder.path().join("store")).len(), 2);
        }
    }
}

fn two_layers() -> Example {
    Example::new(&[tar_of(&[("a", b"1"), ("b", b"2")]), tar_of(&[("b", b"3")])], Compression::Gzip)
}

#[test]
fn oci_layouts_and_archives_are_imported() {
    let (folder, example) = (folder(), two_layers());
    let layout = folder.path().join("layout");
    example.write_layout(&layout, "it");
    let image = import_with(&folder, Input::Path(layout.clone()), &tag("app")).unwrap();
    assert_eq!((image.digest, &image.layers), (example.manifest.digest(), &example.diff_ids));
    check_archive(&folder, &archive(&folder, &layout, "it", "oci-archive", ":it"), &example);
    // `tar -C layout -c .` begins with the root.
    check_archive(&folder, &tar_folder(&layout), &example);
}

#[test]
fn docker_archives_are_imported() {
    let (folder, example) = (folder(), two_layers());
    let layout = folder.path().join("layout");
    example.write_layout(&layout, "it");
    let bytes = archive(&folder, &layout, "it", "docker-archive", ":app:1");
    check_archive(&folder, &bytes, &example);
    let image = import_bytes(&folder, bytes).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&example.config.bytes).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], image.layers[0].to_string());
}

#[test]
fn old_docker_archives_with_links_for_layers_are_imported() {
    let (folder, example) = (folder(), two_layers());
    let plain = [tar_of(&[("a", b"1"), ("b", b"2")]), tar_of(&[("b", b"3")])];
    let config = example.config.digest().hex();
    let manifest = serde_json::json!([{
        "Config": format!("{config}.json"), "RepoTags": ["app:1"],
        "Layers": [format!("{0}/layer.tar", "a".repeat(64)), format!("{0}/layer.tar", "c".repeat(64))],
    }])
    .to_string();
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        builder.append_data(&mut header, path, content).unwrap();
    };
    let file = tar::EntryType::Regular;
    add(&format!("{}/", "a".repeat(64)), tar::EntryType::Directory, "", b"");
    add(&format!("{}/layer.tar", "a".repeat(64)), file, "", &plain[0]);
    add(&format!("{}/layer.tar", "b".repeat(64)), file, "", &plain[1]);
    add(
        &format!("{}/layer.tar", "c".repeat(64)),
        tar::EntryType::Symlink,
        &format!("../{}/layer.tar", "b".repeat(64)),
        b"",
    );
    add("manifest.json", file, "", manifest.as_bytes());
    add(&format!("{config}.json"), file, "", &example.config.bytes);
    let image = import_bytes(&folder, builder.into_inner().unwrap()).unwrap();
    assert_eq!((image.layers, image.digest), (example.diff_ids, example.config.digest()));
}

#[test]
fn root_file_systems_stream_in() {
    let folder = folder();
    let tar = tar_of(&[("./etc/os-release", b"x"), ("./bin/sh", b"#!")]);
    for compression in COMPRESSIONS {
        let packed = compress(&tar, compression);
        let path = folder.path().join("packed");
        fs::write(&path, &packed).unwrap();
        for input in [Input::Path(path), Input::Stream(Box::new(Cursor::new(packed)))] {
            let image = import_with(&folder, input, &tag("root")).unwrap();
            assert_eq!(image.layers, [Digest::of(&tar)]);
            assert_eq!(image.config, ImageConfig::default());
        }
    }
    let config = ImageConfig { cmd: vec!["/bin/sh".into()], ..ImageConfig::default() };
    let options = ImportOptions { config: config.clone(), ..tag("root") };
    let image = import_with(&folder, Input::Stream(Box::new(Cursor::new(tar))), &options).unwrap();
    assert_eq!(image.config, config);
    // It begins like an archive of images, and is none.
    let odd = tar_of(&[("blobs/a", b"x"), ("etc/os-release", b"y")]);
    assert_eq!(import_bytes(&folder, odd.clone()).unwrap().layers, [Digest::of(&odd)]);
    assert_eq!(import_bytes(&folder, compress(&odd, Compression::Gzip)).unwrap().layers, [Digest::of(&odd)]);
}

#[test]
fn one_of_several_images_is_chosen_by_name() {
    let folder = folder();
    let image = |name: &str| Example::new(&[tar_of(&[(name, b"")])], Compression::Gzip);
    let (one, two) = (image("one"), image("two"));
    let layout = folder.path().join("layout");
    write_layout(&layout, &[("app:one", &one), ("app:two", &two)]);
    let docker = docker_archive_of(&[("app:one", &one), ("app:two", &two)]);
    let inputs = || [Input::Path(layout.clone()), Input::Stream(Box::new(Cursor::new(docker.clone())))];
    for input in inputs() {
        let error = import_with(&folder, input, &tag("mine")).unwrap_err();
        assert_eq!(error.to_string(), "there are several images: app:one, app:two");
    }
    for input in inputs() {
        let options = ImportOptions { select: Some("app:two".into()), ..tag("mine") };
        assert_eq!(import_with(&folder, input, &options).unwrap().layers, two.diff_ids);
    }
    for input in inputs() {
        assert_eq!(import_with(&folder, input, &tag("app:one")).unwrap().layers, one.diff_ids);
    }
    for input in inputs() {
        let options = ImportOptions { select: Some("app:three".into()), ..tag("mine") };
        let error = import_with(&folder, input, &options).unwrap_err();
        assert_eq!(error.to_string(), "there is no image \"app:three\", only app:one, app:two");
    }
}

/// What `docker save` makes of several images since it stores blobs by digest.
fn docker_archive_of(images: &[(&str, &Example)]) -> Vec<u8> {
    let path = |blob: &crate::example::Blob| format!("blobs/sha256/{}", blob.digest().hex());
    let entries: Vec<serde_json::Value> = images
        .iter()
        .map(|(name, it)| {
            let layers: Vec<String> = it.layers.iter().map(path).collect();
            serde_json::json!({"Config": path(&it.config), "RepoTags": [name], "Layers": layers})
        })
        .collect();
    let manifest = serde_json::Value::from(entries).to_string();
    let mut files: Vec<(String, &[u8])> = Vec::new();
    for (_, it) in images {
        files.extend(it.blobs().map(|blob| (path(blob), blob.bytes.as_slice())));
    }
    files.push(("manifest.json".into(), manifest.as_bytes()));
    tar_of(&files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect::<Vec<_>>())
}

#[test]
fn layers_that_are_there_are_shared() {
    let folder = folder();
    let (base, rest) = (tar_of(&[("base", b"")]), tar_of(&[("rest", b"")]));
    let lower = folder.path().join("lower");
    Example::new(std::slice::from_ref(&base), Compression::Gzip).write_layout(&lower, "it");
    import_with(&folder, Input::Path(lower), &tag("lower")).unwrap();
    let upper = folder.path().join("upper");
    let example = Example::new(&[base.clone(), rest, base], Compression::Zstd);
    example.write_layout(&upper, "it");
    // The shared layer is not even read.
    fs::remove_file(upper.join("blobs/sha256").join(example.layers[0].digest().hex())).unwrap();
    let image = import_with(&folder, Input::Path(upper), &tag("upper")).unwrap();
    assert_eq!(image.layers.len(), 3);
    let store = Store::open(folder.path().join("store")).unwrap();
    assert_eq!(store.open_layers(&image, &Cancel::default()).unwrap().disks().len(), 2);
    assert_eq!(layers_in(&folder.path().join("store")).len(), 2);
}
