//! One layer: tar in, EROFS out, in one pass.
//!
//! A layer is applied as OCI says: of entries with the same path the last one counts, whiteouts
//! hide what *lower* layers have and nothing of this one, in whatever order they come. A directory
//! that takes the place of a deletion or of a file of this layer begins empty: it is opaque.
//!
//! Nothing is followed: an entry beneath a symbolic link of the same layer is an error, since
//! only an attack or a broken writer makes one. (Docker resolves the link within the root.)

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;

use super::directories;
use super::error::{PathProblem, shown};
use super::path::{self, Request};
use super::stream::Stream;
use super::tar::{Archive, Body, Entry, Segment};
use super::tree::{self, Directory, NodeId, Object, Tree};
use super::{LayerError, Limits};
use crate::erofs::{self, FileType, Node, Writer, Xattrs};

/// Attributes that are overlayfs's own: from an image they would change what it shows.
const OVERLAY_XATTRS: &[u8] = b"trusted.overlay.";

/// A layer that has become an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Converted {
    /// SHA-256 of the uncompressed tar stream, to its last byte: the layer's diff ID.
    pub diff_id: [u8; 32],
    /// Length of the image.
    pub image_bytes: u64,
    /// Entries of the tar stream.
    pub entries: u64,
    /// Length of the uncompressed tar stream.
    pub tar_bytes: u64,
}

/// Converts the layer read from `source` (a tar stream: plain, gzip or zstd, told apart by its
/// first bytes) to an EROFS image that replaces what is in `out`. After an error `out` holds no
/// valid image; its removal, like `fsync`, is the caller's.
///
/// `progress` hears how many bytes of `source` were taken so far, at least once per MiB of the
/// uncompressed stream, and stops the conversion by `ControlFlow::Break`.
///
/// # Errors
/// A damaged, hostile or too large layer, a failing source or a failing disk.
pub fn convert(
    source: impl Read,
    out: &mut File,
    limits: &Limits,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Converted, LayerError> {
    let mut archive = Archive::new(Stream::new(source, limits.expanded_bytes, progress)?);
    let writer = Writer::new(out, limits.expanded_bytes)?;
    let mut layer = Layer { writer, tree: Tree::new(limits.metadata_bytes), limits };
    let mut entries = 0;
    while let Some(entry) = archive.next()? {
        entries += 1;
        if entries > limits.entries {
            return Err(LayerError::TooManyEntries(limits.entries));
        }
        layer.add(&entry, &mut archive)?;
    }
    let (diff_id, tar_bytes) = archive.finish()?;
    let Layer { mut writer, mut tree, .. } = layer;
    directories::write(&mut tree, &mut writer)?;
    let image_bytes = writer.finish(erofs::uuid(&diff_id))?;
    Ok(Converted { diff_id, image_bytes, entries, tar_bytes })
}

/// A layer on its way from one to the other.
struct Layer<'f> {
    writer: Writer<'f>,
    tree: Tree,
    limits: &'f Limits,
}

impl Layer<'_> {
    fn add(&mut self, entry: &Entry, archive: &mut Archive<'_, impl Read>) -> Result<(), LayerError> {
        let wrong = |problem| LayerError::Path { path: shown(&entry.path), problem };
        let components = path::parse(&entry.path, self.limits).map_err(wrong)?;
        let request = path::request(&components).map_err(wrong)?;
        let Some((name, parents)) = components.split_last() else {
            return match entry.body {
                Body::Directory => self.tree.describe(0, entry.attributes, xattrs(entry)?),
                _ => Err(wrong(PathProblem::Root)),
            };
        };
        if request == Request::Nothing {
            return Ok(());
        }
        let (parent, directory) = self.parent(parents, &entry.path)?;
        match request {
            Request::Opaque => self.tree.directory_mut(directory).opaque = true,
            Request::Whiteout(hidden) => self.whiteout(parent, hidden)?,
            Request::Entry | Request::Nothing => {
                let object = match &entry.body {
                    Body::Directory => return self.directory(parent, name, entry),
                    Body::HardLink(target) => self.hard_link(&entry.path, target)?,
                    Body::File { size, segments } => self.file(entry, *size, segments, archive)?,
                    Body::Symlink(target) => {
                        let xattrs = xattrs(entry)?;
                        let nid = self.writer.symlink(node(entry, &xattrs), target)?;
                        Object::Leaf(FileType::Symlink, nid)
                    }
                    Body::Special(kind, device) => {
                        let xattrs = xattrs(entry)?;
                        let nid = self.writer.special(node(entry, &xattrs), *kind, *device)?;
                        Object::Leaf(*kind, nid)
                    }
                };
                self.tree.put(parent, name, object)?;
            }
        }
        Ok(())
    }

    /// The directory with this path, made if need be.
    fn parent(&mut self, path: &[&[u8]], entry: &[u8]) -> Result<(NodeId, u32), LayerError> {
        let mut found = (tree::ROOT, 0);
        for (depth, name) in path.iter().enumerate() {
            let opaque = match self.tree.lookup(found.0, name) {
                Some((id, Object::Directory(index))) => {
                    found = (id, index);
                    continue;
                }
                Some((_, Object::Leaf(kind, _))) => {
                    let parent = shown(&path[..=depth].join(&b'/'));
                    return Err(LayerError::Beneath { path: shown(entry), parent, what: described(kind) });
                }
                Some((_, Object::Whiteout)) => true,
                Some((_, Object::Gone)) | None => false,
            };
            found = self.tree.put_directory(found.0, name, Directory::implied(opaque))?;
        }
        Ok(found)
    }

    fn whiteout(&mut self, parent: NodeId, name: &[u8]) -> Result<(), LayerError> {
        match self.tree.lookup(parent, name) {
            Some((_, Object::Directory(index))) => self.tree.directory_mut(index).opaque = true,
            // This layer's own file hides what lower layers have as well.
            Some((_, Object::Leaf(..) | Object::Whiteout)) => {}
            Some((_, Object::Gone)) | None => {
                self.tree.put(parent, name, Object::Whiteout)?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, parent: NodeId, name: &[u8], entry: &Entry) -> Result<(), LayerError> {
        let xattrs = xattrs(entry)?;
        match self.tree.lookup(parent, name) {
            Some((_, Object::Directory(index))) => self.tree.describe(index, entry.attributes, xattrs),
            other => {
                let opaque = other.is_some();
                let directory = Directory { attributes: entry.attributes, xattrs, opaque };
                self.tree.put_directory(parent, name, directory).map(drop)
            }
        }
    }

    /// What the hard link at `path` leads to.
    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<Object, LayerError> {
        let wrong = |problem| LayerError::Path { path: shown(target), problem };
        let components = path::parse(target, self.limits).map_err(wrong)?;
        let root = (tree::ROOT, Object::Directory(0));
        let found = components.iter().try_fold(root, |(at, _), name| self.tree.lookup(at, name));
        let problem = match found {
            Some((_, object @ Object::Leaf(_, nid))) => {
                self.tree.link(nid)?;
                return Ok(object);
            }
            Some((_, Object::Directory(_))) => "is a directory",
            _ => "is no earlier entry of this layer",
        };
        Err(LayerError::HardLink { path: shown(path), target: shown(target), problem })
    }

    fn file(
        &mut self,
        entry: &Entry,
        size: u64,
        segments: &[Segment],
        archive: &mut Archive<'_, impl Read>,
    ) -> Result<Object, LayerError> {
        let mut content = self.writer.file(node(entry, &xattrs(entry)?), size)?;
        let mut position = 0;
        for segment in segments {
            self.writer.skip(&mut content, segment.offset - position)?;
            position = segment.offset + segment.length;
            let mut left = segment.length;
            while left > 0 {
                let bytes = archive.content(left)?;
                left -= bytes.len() as u64;
                self.writer.append(&mut content, bytes)?;
            }
        }
        self.writer.skip(&mut content, size - position)?;
        Ok(Object::Leaf(FileType::Regular, content.nid()))
    }
}

/// The attributes of an entry that Linux can have and that are the image's business.
fn xattrs(entry: &Entry) -> Result<Xattrs, LayerError> {
    let mut attributes = BTreeMap::new();
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| !name.starts_with(OVERLAY_XATTRS)) {
        // The last one of a name counts.
        attributes.insert(&name[..], &value[..]);
    }
    Xattrs::of(&attributes).map_err(|(name, source)| LayerError::Xattr {
        path: shown(&entry.path),
        name: shown(name),
        source,
    })
}

fn node<'a>(entry: &Entry, xattrs: &'a Xattrs) -> Node<'a> {
    Node { attributes: entry.attributes, xattrs }
}

fn described(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "a symbolic link",
        FileType::Regular => "a file",
        _ => "no directory",
    }
}
