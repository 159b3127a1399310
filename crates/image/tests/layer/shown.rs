//! Conversion with everything checked that can be, and what the image then shows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::process::Command;

use image::erofs::{FileType, Image, Timestamp};
use image::layer::{Converted, LayerError, Limits, convert, merge};
use tempfile::NamedTempFile;

use crate::items::{Item, tar};

/// A file as an image shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) kind: FileType,
    pub(crate) mode: u16,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: Timestamp,
    pub(crate) links: u32,
    pub(crate) device: Option<(u32, u32)>,
    /// Of a file its bytes, of a symbolic link its target.
    pub(crate) content: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Paths and what they show; the root is the empty path.
pub(crate) type Listing = BTreeMap<Vec<u8>, Shown>;

/// An image, kept as long as this is.
pub(crate) struct Kept {
    pub(crate) file: NamedTempFile,
    pub(crate) converted: Converted,
}

impl Kept {
    pub(crate) fn list(&self) -> Listing {
        list(self.file.as_file())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.file.path()).unwrap()
    }
}

pub(crate) fn try_convert(layer: &[u8], limits: &Limits) -> Result<Kept, LayerError> {
    let mut file = NamedTempFile::new().unwrap();
    let converted = convert(layer, file.as_file_mut(), limits, &mut |_| ControlFlow::Continue(()))?;
    assert_eq!(file.as_file().metadata().unwrap().len(), converted.image_bytes);
    fsck(&file);
    Ok(Kept { file, converted })
}

/// Converts a layer that is sound.
pub(crate) fn converted(items: &[Item]) -> Kept {
    try_convert(&tar(items), &Limits::default()).unwrap()
}

/// Why a layer is refused.
pub(crate) fn refused(items: &[Item]) -> LayerError {
    refused_bytes(&tar(items))
}

pub(crate) fn refused_bytes(layer: &[u8]) -> LayerError {
    match try_convert(layer, &Limits::default()) {
        Ok(_) => panic!("the layer was converted"),
        Err(error) => error,
    }
}

/// Merges images, lowest first.
pub(crate) fn merged(layers: &[Kept]) -> Listing {
    let files: Vec<File> = layers.iter().map(|layer| layer.file.reopen().unwrap()).collect();
    let mut out = NamedTempFile::new().unwrap();
    let merged =
        merge(&files, out.as_file_mut(), &Limits::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    fsck(&out);
    let listing = list(out.as_file());
    // The root is no entry.
    assert_eq!(merged.entries, listing.len() as u64 - 1);
    assert_eq!(merged.image_bytes, out.as_file().metadata().unwrap().len());
    listing
}

pub(crate) fn list(file: &File) -> Listing {
    let image = Image::open(file).unwrap();
    let mut listing = Listing::new();
    let mut pending = vec![(Vec::new(), image.root().unwrap())];
    while let Some((path, inode)) = pending.pop() {
        if inode.kind == FileType::Directory {
            image
                .entries(&inode, |entry| {
                    let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    let child = image.inode(entry.nid).unwrap();
                    assert_eq!(child.kind, entry.kind);
                    pending.push(([&path, slash, entry.name].concat(), child));
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        let mut content = vec![0; if inode.kind == FileType::Directory { 0 } else { inode.size as usize }];
        assert_eq!(image.read_at(&inode, &mut content, 0).unwrap(), content.len());
        let xattrs = image.xattrs(&inode).unwrap();
        let shown = Shown {
            kind: inode.kind,
            mode: inode.attributes.mode,
            owner: (inode.attributes.uid, inode.attributes.gid),
            mtime: inode.attributes.mtime,
            links: inode.links,
            device: inode.device().map(|device| (device.major, device.minor)),
            content,
            xattrs: xattrs.iter().map(|(name, value)| (name, value.to_vec())).collect(),
        };
        listing.insert(path, shown);
    }
    listing
}

/// The reference implementation's opinion of an image.
fn fsck(image: &NamedTempFile) {
    let output = match Command::new("fsck.erofs").arg("-d1").arg("--extract").arg(image.path()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("these tests need fsck.erofs: install erofs-utils")
        }
        output => output.unwrap(),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("<E>"), "fsck.erofs: {said}");
}
