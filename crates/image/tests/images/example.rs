//! Images made for the tests: small, of any number of layers, as blobs, layouts and archives.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::write::GzEncoder;
use image::digest::Digest;
use image::platform::Platform;
use serde_json::{Value, json};

pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// How a layer is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Plain,
    Gzip,
    Zstd,
}

/// A blob with its media type.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

impl Blob {
    pub(crate) fn json(media_type: &str, value: &Value) -> Self {
        Self { media_type: media_type.into(), bytes: value.to_string().into_bytes() }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    pub(crate) fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest().to_string(), "size": self.bytes.len()})
    }
}

/// An image: everything a registry or a layout has of it.
#[derive(Clone)]
pub(crate) struct Example {
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
    pub(crate) manifest: Blob,
    pub(crate) diff_ids: Vec<Digest>,
}

impl Example {
    /// An image for this machine, whose layers are these tars.
    pub(crate) fn new(tars: &[Vec<u8>], compression: Compression) -> Self {
        Self::of_platform(tars, compression, &Platform::host())
    }

    pub(crate) fn of_platform(tars: &[Vec<u8>], compression: Compression, platform: &Platform) -> Self {
        let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
        let config = json!({
            "os": platform.os, "architecture": platform.architecture,
            "config": {
                "Env": ["PATH=/bin", "NAME=a b"], "Cmd": ["/bin/sh"], "Entrypoint": null, "User": "7:8",
                "WorkingDir": "/w", "Labels": {"k": "v"}, "ExposedPorts": {"80/tcp": {}}
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids.iter().map(Digest::to_string).collect::<Vec<_>>()},
            "history": [],
        });
        let layers = tars.iter().map(|tar| layer(tar, compression)).collect();
        Self::from_parts(Blob::json(OCI_CONFIG, &config), layers, diff_ids)
    }

    pub(crate) fn from_parts(config: Blob, layers: Vec<Blob>, diff_ids: Vec<Digest>) -> Self {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        Self { config, layers, manifest: Blob::json(OCI_MANIFEST, &manifest), diff_ids }
    }

    /// An image of one layer with one file.
    pub(crate) fn small() -> Self {
        Self::new(&[tar_of(&[("hello", b"world")])], Compression::Gzip)
    }

    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().chain([&self.config, &self.manifest])
    }

    /// Writes an OCI layout in which the image has this name.
    pub(crate) fn write_layout(&self, folder: &Path, name: &str) {
        write_layout(folder, &[(name, self)]);
    }
}

/// Writes an OCI layout of several images.
pub(crate) fn write_layout(folder: &Path, images: &[(&str, &Example)]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let mut manifests = Vec::new();
    for (name, image) in images {
        for blob in image.blobs() {
            fs::write(blobs.join(blob.digest().hex()), &blob.bytes).unwrap();
        }
        let mut descriptor = image.manifest.descriptor();
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        manifests.push(descriptor);
    }
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
}

fn layer(tar: &[u8], compression: Compression) -> Blob {
    let suffix = match compression {
        Compression::Plain => "",
        Compression::Gzip => "+gzip",
        Compression::Zstd => "+zstd",
    };
    Blob { media_type: format!("{OCI_LAYER}{suffix}"), bytes: compress(tar, compression) }
}

pub(crate) fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::Plain => bytes.to_vec(),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
    }
}

/// A tar of files.
pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A tar of one file that does not compress.
pub(crate) fn noise(path: &str, bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(bytes / 8)
    .flatten()
    .collect();
    tar_of(&[(path, &content)])
}

/// A tar of a folder as it is.
pub(crate) fn tar_folder(folder: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_dir_all(".", folder).unwrap();
    builder.into_inner().unwrap()
}

/// What is in a store that should not be: files on their way.
pub(crate) fn leftovers(store: &Path) -> Vec<String> {
    let entries = fs::read_dir(store.join("tmp")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// The names of the layers in a store, sorted.
pub(crate) fn layers_in(store: &Path) -> Vec<String> {
    let entries = fs::read_dir(store.join("layers/sha256")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
