//! Several layers' images become one: a walk through all of them at once, directory by directory.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs::File;
use std::ops::{ControlFlow, Range};

use sha2::{Digest, Sha256};

use super::{LayerError, Limits};
use crate::erofs::{self, Device, Entry, FileType, Image, ImageError, Inode, Nid, Node, Writer, Xattrs};

/// How much of a file is copied at once.
const COPY: usize = 256 * 1024;

/// Memory of an inode with several names.
const LINKED_COST: u64 = 64;

/// After how many bytes copied the caller hears of it.
const PROGRESS: u64 = 1 << 20;

/// Layers that have become one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// Length of the image.
    pub image_bytes: u64,
    /// Directory entries of the image.
    pub entries: u64,
}

/// Merges `layers`, images made by [`convert`](super::convert), lowest first, to one image that
/// replaces what is in `out`. It shows what overlayfs would show of them, and has neither
/// whiteouts nor opaque directories left. After an error `out` holds no valid image; its removal,
/// like `fsync`, is the caller's.
///
/// `progress` hears how many bytes of content, names and attributes were copied so far, about once per
/// MiB, and stops the merge by `ControlFlow::Break`.
///
/// # Errors
/// A damaged image, a limit, a failing disk.
pub fn merge(
    layers: &[File],
    out: &mut File,
    limits: &Limits,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Merged, LayerError> {
    let mut images = Vec::with_capacity(layers.len());
    let mut digest = Sha256::new();
    for (layer, file) in layers.iter().enumerate() {
        let image = Image::open(file).map_err(|source| LayerError::Image { layer, source })?;
        digest.update(image.uuid());
        images.push(image);
    }
    let mut merge = Merge {
        images: &images,
        writer: Writer::new(out, limits.expanded_bytes)?,
        limits,
        progress,
        copied: 0,
        told: 0,
        entries: 0,
        most_entries: limits.entries.saturating_mul(2 * layers.len() as u64),
        room: limits.metadata_bytes,
        linked: HashMap::new(),
        buffer: vec![0; COPY],
    };
    merge.root()?;
    let entries = merge.entries;
    let mut linked: Vec<(Nid, u32)> = merge.linked.into_values().filter(|(_, links)| *links > 1).collect();
    linked.sort_unstable();
    for (nid, links) in linked {
        merge.writer.set_links(nid, links)?;
    }
    let image_bytes = merge.writer.finish(erofs::uuid(&digest.finalize().into()))?;
    Ok(Merged { image_bytes, entries })
}

/// The same directory in several layers, the highest first, as far as they are merged.
type Stack = Vec<(usize, Inode)>;

/// A name in one layer's directory.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// Where the name is in the listing.
    name: (u32, u8),
    kind: FileType,
    layer: u32,
    /// In the layer; in the merged image, once it is there.
    nid: Nid,
}

/// The names of a merged directory, sorted; of a name that is a directory in several layers all
/// that are merged, the highest first.
#[derive(Debug, Default)]
struct Listing {
    found: Vec<Found>,
    names: Vec<u8>,
}

impl Listing {
    fn name(&self, found: &Found) -> &[u8] {
        let (start, length) = found.name;
        &self.names[start as usize..][..usize::from(length)]
    }

    /// Each name once.
    fn shown(&self) -> impl Iterator<Item = Entry<'_>> {
        self.found.chunk_by(|a, b| self.name(a) == self.name(b)).map(|group| Entry {
            name: self.name(&group[0]),
            nid: group[0].nid,
            kind: group[0].kind,
        })
    }

    /// The names that are the same as the one at `first`, the first of its kind.
    fn group(&self, first: usize) -> Range<usize> {
        let name = self.name(&self.found[first]);
        let count = self.found[first..].iter().take_while(|other| self.name(other) == name).count();
        first..first + count
    }

    fn push(&mut self, layer: usize, entry: Entry<'_>) {
        let start = u32::try_from(self.names.len()).expect("the memory limit is below 4 GiB");
        let length = u8::try_from(entry.name.len()).expect("the reader checks names");
        let layer = u32::try_from(layer).expect("layers are few");
        self.names.extend(entry.name);
        self.found.push(Found { name: (start, length), kind: entry.kind, layer, nid: entry.nid });
    }

    /// By name, the highest layer first.
    fn sort(&mut self) {
        let Self { found, names } = self;
        found.sort_unstable_by_key(|found| {
            let (start, length) = found.name;
            (&names[start as usize..][..usize::from(length)], Reverse(found.layer))
        });
    }

    /// Memory of one more name.
    fn cost(name: &[u8]) -> u64 {
        (size_of::<Found>() + name.len()) as u64
    }

    fn memory(&self) -> u64 {
        (self.found.len() * size_of::<Found>() + self.names.len()) as u64
    }
}

struct Merge<'a, 'f> {
    images: &'a [Image<'a>],
    writer: Writer<'f>,
    limits: &'a Limits,
    progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
    copied: u64,
    told: u64,
    entries: u64,
    most_entries: u64,
    /// Memory left for the listings on the way to where the walk is, and for the hard links.
    room: u64,
    /// Where files with several names have gone, and how many names there are so far.
    linked: HashMap<(usize, Nid), (Nid, u32)>,
    buffer: Vec<u8>,
}

impl Merge<'_, '_> {
    fn root(&mut self) -> Result<(), LayerError> {
        let mut stack = Stack::new();
        for layer in (0..self.images.len()).rev() {
            let root = self.images[layer].root().map_err(fault(layer))?;
            stack.push((layer, root));
            if self.xattrs(layer, &root)?.is_opaque() {
                break;
            }
        }
        if stack.is_empty() {
            return Err(LayerError::NoLayers);
        }
        self.directory(&stack, None, 0).map(drop)
    }

    /// Writes the directory that these make together, and all beneath it.
    fn directory(
        &mut self,
        stack: &[(usize, Inode)],
        parent: Option<Nid>,
        depth: usize,
    ) -> Result<Nid, LayerError> {
        let (top, inode) = &stack[0];
        if depth > self.limits.depth {
            return Err(fault(*top)(ImageError::Directory(inode.nid)));
        }
        let mut listing = self.list(stack)?;
        self.tell(listing.memory())?;
        let mut xattrs = self.xattrs(*top, inode)?;
        xattrs.clear_opaque();
        let node = Node { attributes: inode.attributes, xattrs: &xattrs };
        let subdirectories = listing.shown().filter(|child| child.kind == FileType::Directory).count();
        let links = u32::try_from(subdirectories + 2).unwrap_or(u32::MAX);
        let names = listing.shown().map(|child| child.name);
        let place = match parent {
            None => self.writer.root(node, links, names)?,
            Some(_) => self.writer.directory(node, links, names)?,
        };
        let mut next = 0;
        while next < listing.found.len() {
            let group = listing.group(next);
            let nid = self.child(&listing.found[group.clone()], place.nid, depth)?;
            listing.found[next].nid = nid;
            next = group.end;
        }
        self.writer.fill(place, parent.unwrap_or(place.nid), listing.shown())?;
        self.room += listing.memory();
        Ok(place.nid)
    }

    /// What `stack` shows: names of higher layers hide those of lower ones, but directories are
    /// merged with what lies below up to a deletion, a file or an opaque directory.
    fn list(&mut self, stack: &[(usize, Inode)]) -> Result<Listing, LayerError> {
        let mut listing = Listing::default();
        for (layer, inode) in stack {
            let mut full = false;
            let visit = |entry: Entry<'_>| match self.room.checked_sub(Listing::cost(entry.name)) {
                Some(room) => {
                    self.room = room;
                    listing.push(*layer, entry);
                    ControlFlow::Continue(())
                }
                None => {
                    full = true;
                    ControlFlow::Break(())
                }
            };
            self.images[*layer].entries(inode, visit).map_err(fault(*layer))?;
            if full {
                return Err(LayerError::TooMuchMetadata(self.limits.metadata_bytes));
            }
        }
        listing.sort();
        let (mut next, mut kept) = (0, 0);
        while next < listing.found.len() {
            let group = listing.group(next);
            let visible = self.visible(&listing.found[group.clone()])?;
            listing.found.copy_within(next..next + visible, kept);
            kept += visible;
            next = group.end;
            self.entries += u64::from(visible > 0);
        }
        self.room += ((listing.found.len() - kept) * size_of::<Found>()) as u64;
        listing.found.truncate(kept);
        if self.entries > self.most_entries {
            return Err(LayerError::TooManyEntries(self.most_entries));
        }
        Ok(listing)
    }

    /// How many of these, all of one name and the highest first, have a part in what shows.
    fn visible(&self, group: &[Found]) -> Result<usize, LayerError> {
        let top = &group[0];
        if top.kind != FileType::Directory {
            let hidden = top.kind == FileType::CharDevice && self.inode(top)?.1.is_whiteout();
            return Ok(usize::from(!hidden));
        }
        let mut visible = 1;
        while group.get(visible).is_some_and(|below| below.kind == FileType::Directory) {
            let (layer, above) = self.inode(&group[visible - 1])?;
            if self.xattrs(layer, &above)?.is_opaque() {
                break;
            }
            visible += 1;
        }
        Ok(visible)
    }

    /// Writes what a name shows.
    fn child(&mut self, group: &[Found], parent: Nid, depth: usize) -> Result<Nid, LayerError> {
        let sources: Vec<_> = group.iter().map(|found| self.inode(found)).collect::<Result<_, _>>()?;
        let (layer, inode) = sources[0];
        match inode.kind {
            FileType::Directory => self.directory(&sources, Some(parent), depth + 1),
            _ if inode.links > 1 => self.linked(layer, &inode),
            _ => self.leaf(layer, &inode),
        }
    }

    /// Writes a file with several names once.
    fn linked(&mut self, layer: usize, inode: &Inode) -> Result<Nid, LayerError> {
        if let Some((nid, links)) = self.linked.get_mut(&(layer, inode.nid)) {
            *links += 1;
            return Ok(*nid);
        }
        self.room = self
            .room
            .checked_sub(LINKED_COST)
            .ok_or(LayerError::TooMuchMetadata(self.limits.metadata_bytes))?;
        let nid = self.leaf(layer, inode)?;
        self.linked.insert((layer, inode.nid), (nid, 1));
        Ok(nid)
    }

    /// Writes what is no directory.
    fn leaf(&mut self, layer: usize, inode: &Inode) -> Result<Nid, LayerError> {
        let image = &self.images[layer];
        let xattrs = self.xattrs(layer, inode)?;
        self.tell(xattrs.size() as u64)?;
        let node = Node { attributes: inode.attributes, xattrs: &xattrs };
        match inode.kind {
            FileType::Regular => self.file(layer, inode, node),
            FileType::Symlink => {
                let target = image.link_target(inode).map_err(fault(layer))?;
                Ok(self.writer.symlink(node, &target)?)
            }
            kind => Ok(self.writer.special(node, kind, inode.device().unwrap_or(Device::NONE))?),
        }
    }

    fn file(&mut self, layer: usize, inode: &Inode, node: Node<'_>) -> Result<Nid, LayerError> {
        let mut content = self.writer.file(node, inode.size)?;
        let mut offset = 0;
        while offset < inode.size {
            let read = self.images[layer].read_at(inode, &mut self.buffer, offset).map_err(fault(layer))?;
            self.writer.append(&mut content, &self.buffer[..read])?;
            offset += read as u64;
            self.tell(read as u64)?;
        }
        Ok(content.nid())
    }

    /// Counts bytes copied, and tells the caller of it every now and then.
    fn tell(&mut self, copied: u64) -> Result<(), LayerError> {
        self.copied += copied;
        if self.copied - self.told < PROGRESS {
            return Ok(());
        }
        self.told = self.copied;
        if (self.progress)(self.copied).is_break() { Err(LayerError::Cancelled) } else { Ok(()) }
    }

    fn inode(&self, found: &Found) -> Result<(usize, Inode), LayerError> {
        let layer = found.layer as usize;
        let inode = self.images[layer].inode(found.nid).map_err(fault(layer))?;
        let named_so = inode.kind == found.kind;
        if named_so { Ok((layer, inode)) } else { Err(fault(layer)(ImageError::Inode(found.nid))) }
    }

    fn xattrs(&self, layer: usize, inode: &Inode) -> Result<Xattrs, LayerError> {
        self.images[layer].xattrs(inode).map_err(fault(layer))
    }
}

fn fault(layer: usize) -> impl Fn(ImageError) -> LayerError {
    move |source| LayerError::Image { layer, source }
}
