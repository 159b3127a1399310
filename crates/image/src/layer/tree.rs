//! The names of a layer, compactly: some 45 bytes an entry. Content and attributes of files are
//! in the image already when they get their names here.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::LayerError;
use crate::erofs::{Attributes, FileType, Nid, Timestamp, Xattrs};

/// A name's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(u32);

/// The root directory, which has no name.
pub(super) const ROOT: NodeId = NodeId(0);

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Object {
    /// A directory: its index among the directories.
    Directory(u32),
    /// Anything else, written to the image.
    Leaf(FileType, Nid),
    /// A deletion of what lower layers have.
    Whiteout,
    /// Nothing any more; what lies beneath is gone with it.
    Gone,
}

/// What is known of a directory before it is written.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    pub(super) attributes: Attributes,
    pub(super) xattrs: Xattrs,
    /// Hides what lower layers have in it.
    pub(super) opaque: bool,
}

impl Directory {
    /// A directory that no entry describes: other entries lie beneath it.
    pub(super) fn implied(opaque: bool) -> Self {
        let mtime = Timestamp::default();
        let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, mtime };
        Self { attributes, xattrs: Xattrs::default(), opaque }
    }
}

/// All names of a layer.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// Each name with its length before it.
    names: Vec<u8>,
    /// Finds a node by its parent and name.
    index: HashTable<u32>,
    hasher: RandomState,
    directories: Vec<Directory>,
    /// Inodes with more than one name.
    linked: HashSet<Nid>,
    limit: u64,
    room: u64,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    parent: NodeId,
    /// Where its name is.
    name: u32,
    /// An [`Object`].
    packed: u64,
}

/// Memory of a name: the node, its place in the index (5 bytes, at most half of it used, and half
/// as much again while it grows) and in the sorted list.
const NODE_COST: u64 = 16 + 15 + 4 + 1;

/// Memory of an inode with several names.
const LINKED_COST: u64 = 32;

impl Tree {
    /// A tree of an implied root, that takes at most about `limit` bytes of memory.
    pub(super) fn new(limit: u64) -> Self {
        let root = Node { parent: ROOT, name: 0, packed: Object::Directory(0).pack() };
        Self {
            nodes: vec![root],
            names: vec![0],
            index: HashTable::new(),
            hasher: RandomState::new(),
            directories: vec![Directory::implied(false)],
            linked: HashSet::new(),
            limit,
            room: limit,
        }
    }

    /// What a name stands for.
    pub(super) fn object(&self, id: NodeId) -> Object {
        Object::unpack(self.node(id).packed)
    }

    /// A name; empty of the root.
    pub(super) fn name(&self, id: NodeId) -> &[u8] {
        let start = self.node(id).name as usize;
        let length = usize::from(self.names[start]);
        &self.names[start + 1..][..length]
    }

    /// The name in this directory, if it stands for something.
    pub(super) fn lookup(&self, parent: NodeId, name: &[u8]) -> Option<(NodeId, Object)> {
        let hash = self.hasher.hash_one((parent.0, name));
        let id = *self.index.find(hash, |id| self.is(NodeId(*id), parent, name))?;
        Some((NodeId(id), self.object(NodeId(id))))
    }

    /// Makes a name stand for something, instead of what it stood for.
    pub(super) fn put(&mut self, parent: NodeId, name: &[u8], object: Object) -> Result<NodeId, LayerError> {
        let packed = object.pack();
        match self.lookup(parent, name) {
            Some((old, Object::Directory(_))) => {
                // Its number stays the parent of what was beneath it, so the name gets another.
                let hash = self.hasher.hash_one((parent.0, name));
                let new = self.add(Node { packed, ..*self.node(old) }, 0)?;
                self.nodes[old.0 as usize].packed = Object::Gone.pack();
                let place = self.index.find_mut(hash, |id| *id == old.0).expect("it was just found");
                *place = new.0;
                Ok(new)
            }
            Some((old, _)) => {
                self.nodes[old.0 as usize].packed = packed;
                Ok(old)
            }
            None => {
                let start = u32::try_from(self.names.len()).expect("the memory limit is below 4 GiB");
                let id = self.add(Node { parent, name: start, packed }, name.len())?;
                self.names.push(u8::try_from(name.len()).expect("paths are checked for their names' length"));
                self.names.extend(name);
                let Self { index, hasher, nodes, names, .. } = self;
                let hash_of = |id: &u32| {
                    let node = &nodes[*id as usize];
                    let (length, rest) = (names[node.name as usize], &names[node.name as usize + 1..]);
                    hasher.hash_one((node.parent.0, &rest[..usize::from(length)]))
                };
                index.insert_unique(hasher.hash_one((parent.0, name)), id.0, hash_of);
                Ok(id)
            }
        }
    }

    /// Makes a name stand for a directory, instead of what it stood for; the directory's index
    /// comes along.
    pub(super) fn put_directory(
        &mut self,
        parent: NodeId,
        name: &[u8],
        directory: Directory,
    ) -> Result<(NodeId, u32), LayerError> {
        self.spend((size_of::<Directory>() + directory.xattrs.size()) as u64)?;
        let index = u32::try_from(self.directories.len()).expect("the memory limit is below 4 GiB");
        self.directories.push(directory);
        Ok((self.put(parent, name, Object::Directory(index))?, index))
    }

    /// The directory of an [`Object::Directory`].
    pub(super) fn directory(&self, index: u32) -> &Directory {
        &self.directories[index as usize]
    }

    /// The same, to be changed.
    pub(super) fn directory_mut(&mut self, index: u32) -> &mut Directory {
        &mut self.directories[index as usize]
    }

    /// Gives a directory other attributes.
    pub(super) fn describe(
        &mut self,
        index: u32,
        attributes: Attributes,
        xattrs: Xattrs,
    ) -> Result<(), LayerError> {
        self.spend(xattrs.size() as u64)?;
        let directory = self.directory_mut(index);
        directory.attributes = attributes;
        directory.xattrs = xattrs;
        Ok(())
    }

    /// Remembers that an inode has several names.
    pub(super) fn link(&mut self, nid: Nid) -> Result<(), LayerError> {
        if self.linked.insert(nid) { self.spend(LINKED_COST) } else { Ok(()) }
    }

    /// Whether it has.
    pub(super) fn is_linked(&self, nid: Nid) -> bool {
        self.linked.contains(&nid)
    }

    /// All names that stand for something, by directory and then by name; also those beneath
    /// directories that are gone, which no directory leads to any more.
    pub(super) fn sorted(&mut self) -> Sorted {
        self.index = HashTable::new();
        let count = u32::try_from(self.nodes.len()).expect("nodes are numbered in 32 bits");
        let mut order: Vec<NodeId> =
            (1..count).map(NodeId).filter(|id| self.object(*id) != Object::Gone).collect();
        order.sort_unstable_by_key(|id| (self.node(*id).parent, self.name(*id)));
        Sorted(order)
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn is(&self, id: NodeId, parent: NodeId, name: &[u8]) -> bool {
        self.node(id).parent == parent && self.name(id) == name
    }

    fn add(&mut self, node: Node, name_bytes: usize) -> Result<NodeId, LayerError> {
        self.spend(NODE_COST + name_bytes as u64)?;
        let id = u32::try_from(self.nodes.len()).expect("the memory limit is below 4 GiB");
        self.nodes.push(node);
        Ok(NodeId(id))
    }

    fn spend(&mut self, bytes: u64) -> Result<(), LayerError> {
        self.room = self.room.checked_sub(bytes).ok_or(LayerError::TooMuchMetadata(self.limit))?;
        Ok(())
    }
}

/// The names of a [`Tree`] in order.
#[derive(Debug)]
pub(super) struct Sorted(Vec<NodeId>);

impl Sorted {
    /// The names in a directory, sorted.
    pub(super) fn children(&self, tree: &Tree, directory: NodeId) -> &[NodeId] {
        let start = self.0.partition_point(|id| tree.node(*id).parent < directory);
        let rest = &self.0[start..];
        &rest[..rest.partition_point(|id| tree.node(*id).parent == directory)]
    }
}

impl Object {
    /// The type and a number of 56 bits: inodes are numbered in units of 32 bytes.
    fn pack(self) -> u64 {
        let (tag, number) = match self {
            Self::Gone => (0, 0),
            Self::Directory(index) => (FileType::Directory as u8, u64::from(index)),
            Self::Leaf(kind, nid) => (kind as u8, nid.0),
            Self::Whiteout => (0xff, 0),
        };
        u64::from(tag) << 56 | number
    }

    fn unpack(packed: u64) -> Self {
        let number = packed & ((1 << 56) - 1);
        match ((packed >> 56) as u8, FileType::from_dirent((packed >> 56) as u8)) {
            (0xff, _) => Self::Whiteout,
            (_, Some(FileType::Directory)) => Self::Directory(number as u32),
            (_, Some(kind)) => Self::Leaf(kind, Nid(number)),
            (_, None) => Self::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Object = Object::Leaf(FileType::Regular, Nid(1 << 40));

    #[test]
    fn a_directory_that_is_replaced_takes_along_what_lies_beneath() {
        let mut tree = Tree::new(1 << 20);
        let old = tree.put_directory(ROOT, b"d", Directory::implied(false)).unwrap().0;
        tree.put(old, b"inside", FILE).unwrap();
        tree.put(ROOT, b"d", FILE).unwrap();
        assert_eq!(tree.lookup(ROOT, b"d").map(|(_, object)| object), Some(FILE));
        let new = tree.put_directory(ROOT, b"d", Directory::implied(false)).unwrap().0;
        assert_ne!(old, new);
        assert_eq!(tree.lookup(new, b"inside"), None);
        let sorted = tree.sorted();
        assert_eq!(sorted.children(&tree, ROOT), [new]);
        assert!(sorted.children(&tree, new).is_empty());
    }

    #[test]
    fn children_are_sorted_as_bytes() {
        let mut tree = Tree::new(1 << 20);
        let names: [&[u8]; 6] = [b"b", b"a", b"\xff", b"B", b"ab", b"-"];
        let ids = names.map(|name| tree.put(ROOT, name, FILE).unwrap());
        let sub = tree.put_directory(ROOT, b"sub", Directory::implied(false)).unwrap().0;
        tree.put(sub, b"a", Object::Whiteout).unwrap();
        assert_eq!(tree.lookup(ROOT, b"b"), Some((ids[0], FILE)));
        let sorted = tree.sorted();
        let listed: Vec<&[u8]> = sorted.children(&tree, ROOT).iter().map(|id| tree.name(*id)).collect();
        assert_eq!(listed, [&b"-"[..], b"B", b"a", b"ab", b"b", b"sub", b"\xff"]);
        assert_eq!(sorted.children(&tree, sub).len(), 1);
    }

    #[test]
    fn memory_is_limited() {
        let mut tree = Tree::new(10_000);
        let full = (0..1000_u32).find_map(|n| tree.put(ROOT, &n.to_le_bytes(), FILE).err());
        assert!(matches!(full, Some(LayerError::TooMuchMetadata(10_000))));
    }
}
