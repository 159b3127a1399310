//! OCI image layouts (OCI image specification, "Image Layout"), in a folder or in a tar of it:
//! `index.json` names manifests, everything is in `blobs/` by digest, and checked against it.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::{Blob, Content, Files, Found, ImportError, ImportOptions, document};
use crate::digest::Digest;
use crate::document::{Configuration, Descriptor, DocumentError, MAX_INDEX_DEPTH, Manifest, select};
use crate::platform::Platform;
use crate::reference::Reference;

/// The file that names the images.
pub(super) const INDEX: &str = "index.json";

/// Annotations that name an image of the index: OCI's, often only a tag, and containerd's, which
/// Docker writes too.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// A folder on the host. Only names are looked up in it that no image can choose: the index, and
/// blobs by digest.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }
}

impl Files for Folder {
    fn open(&self, path: &str) -> Result<Option<Content<'_>>, ImportError> {
        let path = self.0.join(path);
        let open = || -> io::Result<(File, u64)> {
            // Opening what is not a file could wait for ever.
            if !path.metadata()?.is_file() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        match open() {
            Ok((file, length)) => Ok(Some(Content { bytes: Box::new(file), length })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ImportError::Open { path, source }),
        }
    }
}

/// The image to import.
pub(super) fn find(
    files: &dyn Files,
    options: &ImportOptions,
    wanted: &Platform,
) -> Result<Found, ImportError> {
    let index = Manifest::parse(&document(files, INDEX, None)?)?;
    let Manifest::Index(entries) = index else { return Err(DocumentError::Ambiguous.into()) };
    let mut digest = choose(&entries, options, wanted)?.digest;
    for _ in 0..=MAX_INDEX_DEPTH {
        match Manifest::parse(&blob(files, digest)?)? {
            Manifest::Index(entries) => digest = select(entries.iter(), wanted)?.digest,
            Manifest::Image { config, layers } => {
                let configuration = Configuration::parse(&blob(files, config.digest)?)?;
                let layer = |it: Descriptor| Blob { path: path(it.digest), digest: Some(it.digest) };
                return Ok(Found { digest, configuration, layers: layers.into_iter().map(layer).collect() });
            }
        }
    }
    Err(DocumentError::TooDeep.into())
}

/// The entry that was selected; else the one that has the tag already that it is to get; else the
/// one for this platform, if all that have names have the same.
fn choose<'a>(
    entries: &'a [Descriptor],
    options: &ImportOptions,
    wanted: &Platform,
) -> Result<&'a Descriptor, ImportError> {
    let named = |wanted: &str| -> Vec<&'a Descriptor> {
        entries.iter().filter(|entry| name(entry).is_some_and(|name| is_same(name, wanted))).collect()
    };
    let names = || {
        let mut names: Vec<String> = entries.iter().filter_map(name).map(str::to_owned).collect();
        names.dedup();
        names
    };
    let mut candidates = named(options.select.as_ref().unwrap_or(&options.tag.to_string()));
    if candidates.is_empty() {
        if let Some(name) = &options.select {
            return Err(ImportError::NoSuchImage { name: name.clone(), names: names() });
        }
        if names().len() > 1 {
            return Err(ImportError::Several(names()));
        }
        candidates = entries.iter().collect();
    }
    match candidates.as_slice() {
        [] => Err(ImportError::NoImages),
        [only] => Ok(only),
        several => Ok(select(several.iter().copied(), wanted)?),
    }
}

/// Whether two names, each a reference or whatever a tool wrote, mean the same image.
fn is_same(a: &str, b: &str) -> bool {
    let reference = |text: &str| text.parse::<Reference>().ok();
    a == b || reference(a).is_some_and(|a| Some(a) == reference(b))
}

fn name(entry: &Descriptor) -> Option<&str> {
    let annotations = entry.annotations.as_ref()?;
    NAMES.iter().find_map(|name| annotations.get(*name)).map(String::as_str)
}

fn blob(files: &dyn Files, digest: Digest) -> Result<Vec<u8>, ImportError> {
    document(files, &path(digest), Some(digest))
}

fn path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
