//! Extended attributes as stored behind an inode: `struct erofs_xattr_ibody_header`, then entries.

use std::collections::BTreeMap;

use thiserror::Error;

const HEADER: usize = 12;
const ENTRY: usize = 4;

/// Name prefixes with their numbers on disk (`EROFS_XATTR_INDEX_*`). Of the ACLs, the prefix is
/// the whole name.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// The attribute that makes overlayfs hide what lower layers have in a directory.
const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// An attribute that cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum XattrError {
    /// Name or value exceed what Linux has.
    #[error("its name is longer than 255 bytes or its value than 65535")]
    TooLong,
    /// All of a file's attributes together exceed what an inode can have.
    #[error("the file's extended attributes together are larger than {MAX_STORED} bytes")]
    TooMany,
}

/// What `i_xattr_icount` can count.
const MAX_STORED: usize = HEADER + (u16::MAX as usize - 1) * ENTRY;

/// A file's extended attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Xattrs {
    /// Entries as on disk, or nothing.
    entries: Vec<u8>,
}

impl Xattrs {
    /// A file's attributes, by their full names. The names that Linux's EROFS cannot hold (of other
    /// systems, or of file systems) are left out.
    ///
    /// They come as a map, since one file of a layer may have 30,000: looking for each name among those
    /// stored before it would take a minute.
    ///
    /// # Errors
    /// The first that is too long or one too many, and its name.
    pub fn of<'a>(attributes: &BTreeMap<&'a [u8], &[u8]>) -> Result<Self, (&'a [u8], XattrError)> {
        let mut xattrs = Self::default();
        for (name, value) in attributes {
            xattrs.append(name, value).map_err(|error| (*name, error))?;
        }
        Ok(xattrs)
    }

    /// Adds an attribute that is not there yet.
    fn append(&mut self, name: &[u8], value: &[u8]) -> Result<(), XattrError> {
        let Some((index, rest)) = split(name) else { return Ok(()) };
        let (Ok(name_len), Ok(value_len)) = (u8::try_from(rest.len()), u16::try_from(value.len())) else {
            return Err(XattrError::TooLong);
        };
        self.entries.extend([name_len, index]);
        self.entries.extend(value_len.to_le_bytes());
        self.entries.extend(rest);
        self.entries.extend(value);
        self.entries.resize(self.entries.len().next_multiple_of(ENTRY), 0);
        if HEADER + self.entries.len() > MAX_STORED { Err(XattrError::TooMany) } else { Ok(()) }
    }

    /// Marks a directory as opaque.
    ///
    /// # Errors
    /// No room for the mark.
    pub fn set_opaque(&mut self) -> Result<(), XattrError> {
        self.clear_opaque();
        self.append(OPAQUE, b"y")
    }

    /// Takes the mark away.
    pub fn clear_opaque(&mut self) {
        let mut end = 0;
        let found = Raw(&self.entries).flatten().find_map(|entry| {
            end += entry.size;
            entry.is(OPAQUE).then(|| end - entry.size..end)
        });
        if let Some(range) = found {
            self.entries.drain(range);
        }
    }

    /// Whether overlayfs takes the directory with these attributes for an opaque one.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        Raw(&self.entries).flatten().any(|entry| entry.is(OPAQUE) && entry.value == b"y")
    }

    /// Full names and values.
    pub fn iter(&self) -> impl Iterator<Item = (Vec<u8>, &[u8])> {
        Raw(&self.entries).flatten().map(|entry| (entry.name(), entry.value))
    }

    /// Bytes of memory, and about as many in the image.
    #[must_use]
    pub fn size(&self) -> usize {
        self.entries.len()
    }

    /// The on-disk `i_xattr_icount`.
    pub(super) fn count(&self) -> u16 {
        if self.entries.is_empty() {
            return 0;
        }
        u16::try_from(1 + self.entries.len() / ENTRY).expect("`set` keeps to what the field can count")
    }

    /// Appends them as on disk.
    pub(super) fn store(&self, out: &mut Vec<u8>) {
        if !self.entries.is_empty() {
            // No name filter, no shared attributes.
            out.extend([0; HEADER]);
            out.extend(&self.entries);
        }
    }

    /// Those stored as `body`; `None` if they are damaged.
    pub(super) fn load(body: &[u8]) -> Option<Self> {
        let Some((header, entries)) = body.split_first_chunk::<HEADER>() else {
            return body.is_empty().then(Self::default);
        };
        let sound = header.iter().all(|byte| *byte == 0) && Raw(entries).all(|entry| entry.is_some());
        sound.then(|| Self { entries: entries.to_vec() })
    }
}

/// Bytes that this many (`i_xattr_icount`) take behind the inode.
pub(super) fn stored_size(count: u16) -> usize {
    usize::from(count).checked_sub(1).map_or(0, |entries| HEADER + entries * ENTRY)
}

fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(prefix, index)| {
        let rest = name.strip_prefix(*prefix)?;
        let whole = !prefix.ends_with(b".");
        (rest.is_empty() == whole).then_some((*index, rest))
    })
}

/// One entry as stored.
struct RawEntry<'a> {
    prefix: &'static [u8],
    rest: &'a [u8],
    value: &'a [u8],
    size: usize,
}

impl RawEntry<'_> {
    fn name(&self) -> Vec<u8> {
        [self.prefix, self.rest].concat()
    }

    /// Whether it has this full name.
    fn is(&self, name: &[u8]) -> bool {
        name.strip_prefix(self.prefix) == Some(self.rest)
    }
}

/// Iterates over stored entries; a damaged one is `None`, and the last.
struct Raw<'a>(&'a [u8]);

impl<'a> Raw<'a> {
    fn parse(&self) -> Option<RawEntry<'a>> {
        let (head, rest) = self.0.split_first_chunk::<ENTRY>()?;
        let (name, rest) = rest.split_at_checked(usize::from(head[0]))?;
        let (value, _) = rest.split_at_checked(usize::from(u16::from_le_bytes([head[2], head[3]])))?;
        let (prefix, _) = PREFIXES.iter().find(|(_, index)| *index == head[1])?;
        let size = (ENTRY + name.len() + value.len()).next_multiple_of(ENTRY);
        (size <= self.0.len()).then_some(RawEntry { prefix, rest: name, value, size })
    }
}

impl<'a> Iterator for Raw<'a> {
    type Item = Option<RawEntry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.parse();
        self.0 = entry.as_ref().map_or(&[], |entry| &self.0[entry.size..]);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(attributes: &[(&'static [u8], &[u8])]) -> Result<Xattrs, (&'static [u8], XattrError)> {
        Xattrs::of(&attributes.iter().copied().collect())
    }

    #[test]
    fn attributes_survive_storing() {
        assert_eq!(of(&[]), Ok(Xattrs::default()));
        let attributes = [
            (&b"security.capability"[..], &[1, 0, 0, 2, 0, 255][..]),
            (b"system.posix_acl_access", &[2, 0, 0, 0]),
            (b"user.a", b"value"),
        ];
        let xattrs = of(&attributes).unwrap();
        let listed: Vec<(Vec<u8>, &[u8])> = xattrs.iter().collect();
        assert_eq!(listed, attributes.map(|(name, value)| (name.to_vec(), value)));
        let mut body = Vec::new();
        xattrs.store(&mut body);
        assert_eq!(body.len(), stored_size(xattrs.count()));
        assert_eq!(Xattrs::load(&body), Some(xattrs));
    }

    #[test]
    fn names_of_no_linux_namespace_are_left_out() {
        for name in [&b"com.apple.quarantine"[..], b"user.", b"system.posix_acl_access2", b"system.nfs4", b""]
        {
            assert_eq!(of(&[(name, b"x")]), Ok(Xattrs::default()));
        }
    }

    #[test]
    fn too_long_and_too_many_are_refused() {
        let long_name = [b"user.".as_slice(), &[b'n'; 256]].concat().leak();
        assert_eq!(of(&[(long_name, b"")]), Err((&*long_name, XattrError::TooLong)));
        assert_eq!(of(&[(b"user.v", &vec![0; 65536])]), Err((&b"user.v"[..], XattrError::TooLong)));
        let value = vec![0; 65535];
        let four = [&b"user.1"[..], b"user.2", b"user.3", b"user.4"].map(|name| (name, &value[..]));
        assert!(of(&four[..3]).is_ok());
        assert_eq!(of(&four), Err((&b"user.4"[..], XattrError::TooMany)));
    }

    #[test]
    fn the_opaque_mark_can_be_set_and_taken_away() {
        let plain = of(&[(b"security.a", b"1"), (b"user.z", b"2")]).unwrap();
        let mut xattrs = plain.clone();
        for _ in 0..2 {
            xattrs.set_opaque().unwrap();
            assert!(xattrs.is_opaque());
        }
        xattrs.clear_opaque();
        assert_eq!(xattrs, plain);
    }

    #[test]
    fn damaged_bodies_are_noticed() {
        let xattrs = of(&[(b"user.name", b"value")]).unwrap();
        let mut body = Vec::new();
        xattrs.store(&mut body);
        for (offset, byte) in [(0, 1), (4, 1), (HEADER, 200), (HEADER + 1, 5), (HEADER + 2, 255)] {
            let mut damaged = body.clone();
            damaged[offset] = byte;
            assert_eq!(Xattrs::load(&damaged), None, "offset {offset}");
        }
        assert_eq!(Xattrs::load(&body[..HEADER + 2]), None);
        assert_eq!(Xattrs::load(&body[..HEADER - 1]), None);
    }
}
