//! Directories on disk: blocks of `struct erofs_dirent`, each followed by its names, all sorted
//! by name as bytes, since the kernel searches them by halving.

use super::BLOCK;
use super::attributes::{FileType, Nid};

/// Longest name, `NAME_MAX`.
pub(crate) const NAME_MAX: usize = 255;

const DIRENT: usize = 12;

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name: bytes without `/` and NUL, of no particular encoding.
    pub name: &'a [u8],
    /// What it names.
    pub nid: Nid,
    /// The type of that.
    pub kind: FileType,
}

/// `children`, sorted by name, with `.` and `..` in their places among them.
pub(super) fn with_dots<'a>(
    children: impl Iterator<Item = Entry<'a>>,
    own: Nid,
    parent: Nid,
) -> impl Iterator<Item = Entry<'a>> {
    let kind = FileType::Directory;
    let mut dots = [Entry { name: b".", nid: own, kind }, Entry { name: b"..", nid: parent, kind }]
        .into_iter()
        .peekable();
    let mut children = children.peekable();
    std::iter::from_fn(move || match (dots.peek(), children.peek()) {
        (Some(dot), Some(child)) if child.name < dot.name => children.next(),
        (Some(_), _) => dots.next(),
        (None, _) => children.next(),
    })
}

/// Length of a directory with these names, dots included.
pub(super) fn stored_size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut full = 0;
    let mut used = 0;
    for name in names {
        let needed = DIRENT + name.len();
        if used + needed > BLOCK {
            full += 1;
            used = 0;
        }
        used += needed;
    }
    full * BLOCK as u64 + used as u64
}

/// Hands `emit` the blocks of a directory one by one, whole ones but for the last.
pub(super) fn store<'a, E>(
    entries: impl Iterator<Item = Entry<'a>>,
    mut emit: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut pending: Vec<Entry<'a>> = Vec::with_capacity(BLOCK / DIRENT);
    let mut used = 0;
    let mut block = Vec::with_capacity(BLOCK);
    for entry in entries {
        let needed = DIRENT + entry.name.len();
        if used + needed > BLOCK {
            fill_block(&pending, &mut block);
            block.resize(BLOCK, 0);
            emit(&block)?;
            pending.clear();
            used = 0;
        }
        used += needed;
        pending.push(entry);
    }
    fill_block(&pending, &mut block);
    emit(&block)
}

fn fill_block(entries: &[Entry<'_>], block: &mut Vec<u8>) {
    block.clear();
    let mut name_offset = entries.len() * DIRENT;
    for entry in entries {
        block.extend(entry.nid.0.to_le_bytes());
        let offset = u16::try_from(name_offset).expect("a name lies in its block of 4096 bytes");
        block.extend(offset.to_le_bytes());
        block.extend([entry.kind as u8, 0]);
        name_offset += entry.name.len();
    }
    for entry in entries {
        block.extend(entry.name);
    }
}

/// The entries of one stored block (of the last one, what the directory's size leaves of it);
/// `None` if it is damaged. Dots are among them.
pub(super) fn load(block: &[u8]) -> Option<Vec<Entry<'_>>> {
    let head = |index: usize| block.get(index * DIRENT..)?.first_chunk::<DIRENT>();
    let name_offset = |head: &[u8; DIRENT]| usize::from(u16::from_le_bytes([head[8], head[9]]));
    let first = name_offset(head(0)?);
    if first == 0 || first % DIRENT != 0 {
        return None;
    }
    let count = first / DIRENT;
    let mut entries = Vec::with_capacity(count.min(BLOCK / DIRENT));
    for index in 0..count {
        let raw = head(index)?;
        let end = if index + 1 < count { name_offset(head(index + 1)?) } else { block.len() };
        let mut name = block.get(name_offset(raw)..end)?;
        if index + 1 == count {
            name = name.split(|byte| *byte == 0).next()?;
        }
        let well_formed = (1..=NAME_MAX).contains(&name.len()) && !name.contains(&0) && !name.contains(&b'/');
        let (nid, _) = raw.split_first_chunk()?;
        let kind = FileType::from_dirent(raw[10])?;
        entries.push(well_formed.then_some(Entry { name, nid: Nid(u64::from_le_bytes(*nid)), kind })?);
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn big_directories_survive_in_blocks_with_the_dots_in_order() {
        let mut names: Vec<Vec<u8>> = (0..3000).map(|n| format!("name {n}").into_bytes()).collect();
        names.extend([b"-".to_vec(), b"...".to_vec(), b"\xff\xfe".to_vec(), vec![b'l'; NAME_MAX]]);
        names.sort();
        let kind = FileType::Regular;
        let children = names.iter().zip(100..).map(|(name, nid)| Entry { name, nid: Nid(nid), kind });
        let all: Vec<Entry<'_>> = with_dots(children, Nid(1), Nid(2)).collect();
        assert!(all.is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(all.len(), names.len() + 2);

        let mut stored = Vec::new();
        store(all.iter().copied(), |block| -> Result<(), ()> {
            stored.extend(block);
            Ok(())
        })
        .unwrap();
        assert_eq!(stored.len() as u64, stored_size(all.iter().map(|entry| entry.name)));
        let loaded: Vec<Entry<'_>> = stored.chunks(BLOCK).flat_map(|block| load(block).unwrap()).collect();
        assert_eq!(loaded, all);
    }

    #[test]
    fn damaged_blocks_are_noticed() {
        let entry = Entry { name: b"name", nid: Nid(7), kind: FileType::Regular };
        let mut block = Vec::new();
        fill_block(&[entry, entry], &mut block);
        assert!(load(&block).is_some());
        for (offset, byte) in
            [(8, 0), (8, 13), (8, 250), (20, 5), (20, 255), (10, 8), (10, 0), (24, 0), (25, b'/')]
        {
            let mut damaged = block.clone();
            damaged[offset] = byte;
            assert_eq!(load(&damaged), None, "offset {offset}");
        }
        assert_eq!(load(&[]), None);
        assert_eq!(load(&block[..13]), None);
    }
}
