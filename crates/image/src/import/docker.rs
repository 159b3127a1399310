//! Archives of `docker save` (image specification of Docker 1.2 and later): `manifest.json` says
//! which files are the configuration and the layers of each image.

use serde::Deserialize;

use super::archive::Archive;
use super::{Blob, Found, ImportError, ImportOptions, document};
use crate::digest::Digest;
use crate::document::{Configuration, DocumentError};
use crate::reference::Reference;

/// The file that lists the images.
pub(super) const MANIFEST: &str = "manifest.json";

/// An image of the archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The image to import.
pub(super) fn find(archive: &Archive<'_>, options: &ImportOptions) -> Result<Found, ImportError> {
    let json = document(archive, MANIFEST, None)?;
    let images: Vec<Image> = serde_json::from_slice(&json)
        .map_err(|source| DocumentError::Malformed { what: MANIFEST, source })?;
    let image = choose(images, options)?;
    let json = document(archive, &image.config, digest_in_name(&image.config))?;
    let layers = image.layers.unwrap_or_default().into_iter().map(|path| {
        let digest = path.strip_prefix("blobs/sha256/").and_then(digest_in_name);
        Blob { path, digest }
    });
    Ok(Found {
        digest: Digest::of(&json),
        configuration: Configuration::parse(&json)?,
        layers: layers.collect(),
    })
}

/// The image that was selected; else the one that has the tag already that it is to get; else the
/// only one.
fn choose(images: Vec<Image>, options: &ImportOptions) -> Result<Image, ImportError> {
    let names = |image: &Image| image.repo_tags.clone().unwrap_or_default();
    let all: Vec<String> = images.iter().flat_map(names).collect();
    let with = |wanted: &Reference| {
        let same = |name: &String| name.parse::<Reference>().is_ok_and(|name| name == *wanted);
        images.iter().position(|image| names(image).iter().any(same))
    };
    let chosen = match &options.select {
        Some(name) => {
            let found = name.parse().ok().and_then(|wanted| with(&wanted));
            Some(found.ok_or_else(|| ImportError::NoSuchImage { name: name.clone(), names: all.clone() })?)
        }
        None => with(&options.tag),
    };
    let several = images.len() > 1;
    match chosen {
        None if several => Err(ImportError::Several(all)),
        chosen => images.into_iter().nth(chosen.unwrap_or(0)).ok_or(ImportError::NoImages),
    }
}

/// The digest that a configuration's name says: `<hex>.json`, `sha256:<hex>`, `…/<hex>`.
fn digest_in_name(path: &str) -> Option<Digest> {
    let name = path.rsplit('/').next()?;
    let name = name.strip_prefix("sha256:").unwrap_or(name);
    format!("sha256:{}", name.strip_suffix(".json").unwrap_or(name)).parse().ok()
}
