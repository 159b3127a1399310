//! The last part of a conversion: all names are known, so directories can be written.

use std::collections::BTreeMap;

use super::LayerError;
use super::error::shown;
use super::tree::{self, NodeId, Object, Sorted, Tree};
use crate::erofs::{self, Attributes, Device, Entry, FileType, Nid, Node, Timestamp, Writer, Xattrs};

/// Writes the directories of `tree`, and how many names each inode has.
pub(super) fn write(tree: &mut Tree, writer: &mut Writer<'_>) -> Result<(), LayerError> {
    let sorted = tree.sorted();
    let mut directories =
        Directories { tree, sorted: &sorted, writer, whiteout: None, links: BTreeMap::new() };
    let root = directories.place(tree::ROOT, 0)?;
    let mut pending = vec![(tree::ROOT, root, root.nid)];
    while let Some((id, place, parent)) = pending.pop() {
        directories.fill(id, place, parent, &mut pending)?;
    }
    let Directories { links, writer, .. } = directories;
    for (nid, count) in links.into_iter().filter(|(_, count)| *count > 1) {
        writer.set_links(nid, count)?;
    }
    Ok(())
}

struct Directories<'a, 'f> {
    tree: &'a Tree,
    sorted: &'a Sorted,
    writer: &'a mut Writer<'f>,
    /// The inode that all deletions share.
    whiteout: Option<Nid>,
    /// How many names the inodes with several names have.
    links: BTreeMap<Nid, u32>,
}

impl Directories<'_, '_> {
    /// Makes place for a directory.
    fn place(&mut self, id: NodeId, index: u32) -> Result<erofs::Directory, LayerError> {
        let children = self.sorted.children(self.tree, id);
        let subdirectories =
            children.iter().filter(|id| matches!(self.tree.object(**id), Object::Directory(_))).count();
        let links = 2 + u32::try_from(subdirectories).expect("nodes are numbered in 32 bits");
        let names = children.iter().map(|id| self.tree.name(*id));
        let directory = self.tree.directory(index);
        let mut xattrs = directory.xattrs.clone();
        if directory.opaque {
            let (path, name) = (shown(self.tree.name(id)), "trusted.overlay.opaque".to_owned());
            xattrs.set_opaque().map_err(|source| LayerError::Xattr { path, name, source })?;
        }
        let node = Node { attributes: directory.attributes, xattrs: &xattrs };
        Ok(if id == tree::ROOT {
            self.writer.root(node, links, names)?
        } else {
            self.writer.directory(node, links, names)?
        })
    }

    /// Writes a directory's entries, having made place for those beneath it.
    fn fill(
        &mut self,
        id: NodeId,
        place: erofs::Directory,
        parent: Nid,
        pending: &mut Vec<(NodeId, erofs::Directory, Nid)>,
    ) -> Result<(), LayerError> {
        let children = self.sorted.children(self.tree, id);
        let first = pending.len();
        for child in children {
            match self.tree.object(*child) {
                Object::Directory(index) => pending.push((*child, self.place(*child, index)?, place.nid)),
                Object::Leaf(_, nid) if self.tree.is_linked(nid) => *self.links.entry(nid).or_default() += 1,
                Object::Whiteout => {
                    let nid = self.whiteout()?;
                    *self.links.entry(nid).or_default() += 1;
                }
                Object::Leaf(..) | Object::Gone => {}
            }
        }
        let mut subdirectories = pending[first..].iter().map(|(_, place, _)| place.nid);
        let entries = children.iter().filter_map(|child| {
            let (kind, nid) = match self.tree.object(*child) {
                Object::Directory(_) => (FileType::Directory, subdirectories.next()?),
                Object::Leaf(kind, nid) => (kind, nid),
                Object::Whiteout => (FileType::CharDevice, self.whiteout?),
                Object::Gone => return None,
            };
            Some(Entry { name: self.tree.name(*child), nid, kind })
        });
        Ok(self.writer.fill(place, parent, entries)?)
    }

    fn whiteout(&mut self) -> Result<Nid, LayerError> {
        if let Some(nid) = self.whiteout {
            return Ok(nid);
        }
        let attributes = Attributes { mode: 0, uid: 0, gid: 0, mtime: Timestamp::default() };
        let node = Node { attributes, xattrs: &Xattrs::default() };
        let nid = self.writer.special(node, FileType::CharDevice, Device::NONE)?;
        self.whiteout = Some(nid);
        Ok(nid)
    }
}
