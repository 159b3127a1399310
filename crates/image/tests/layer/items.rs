//! Tar streams made byte by byte, hostile ones among them.

use std::iter::repeat_n;

/// An entry to be.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    path: Vec<u8>,
    kind: u8,
    link: Vec<u8>,
    data: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    device: (u32, u32),
    pax: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Item {
    pub(crate) fn new(kind: u8, path: impl AsRef<[u8]>) -> Self {
        Self {
            path: path.as_ref().to_vec(),
            kind,
            link: Vec::new(),
            data: Vec::new(),
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            owner: (0, 0),
            device: (0, 0),
            pax: Vec::new(),
        }
    }

    pub(crate) fn file(path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        Self { data: data.as_ref().to_vec(), ..Self::new(b'0', path) }
    }

    pub(crate) fn directory(path: impl AsRef<[u8]>) -> Self {
        Self::new(b'5', path)
    }

    pub(crate) fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..Self::new(b'2', path) }
    }

    pub(crate) fn hard_link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..Self::new(b'1', path) }
    }

    pub(crate) fn char_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self { device: (major, minor), ..Self::new(b'3', path) }
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn owner(self, uid: u32, gid: u32) -> Self {
        Self { owner: (uid, gid), ..self }
    }

    /// Adds a pax record.
    pub(crate) fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.as_bytes().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// Header, content and padding, after a pax header if one is needed.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut records = self.pax.clone();
        for (key, value) in [(&b"path"[..], &self.path), (b"linkpath", &self.link)] {
            if value.len() > 100 {
                records.push((key.to_vec(), value.clone()));
            }
        }
        if !records.is_empty() {
            let payload: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            bytes.extend(with_content(&header(&Self::new(b'x', "pax"), payload.len() as u64), &payload));
        }
        bytes.extend(with_content(&header(self, self.data.len() as u64), &self.data));
        bytes
    }
}

/// A whole tar stream.
pub(crate) fn tar(items: &[Item]) -> Vec<u8> {
    let mut bytes: Vec<u8> = items.iter().flat_map(Item::bytes).collect();
    bytes.extend(repeat_n(0, 1024));
    bytes
}

/// A header for content of this size, with the right checksum.
pub(crate) fn header(item: &Item, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    let name = &item.path[..item.path.len().min(100)];
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name);
    let link = &item.link[..item.link.len().min(100)];
    old.linkname[..link.len()].copy_from_slice(link);
    header.as_mut_bytes()[156] = item.kind;
    header.set_mode(item.mode);
    header.set_uid(item.owner.0.into());
    header.set_gid(item.owner.1.into());
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    if item.device != (0, 0) {
        header.set_device_major(item.device.0).unwrap();
        header.set_device_minor(item.device.1).unwrap();
    }
    header.set_cksum();
    header
}

/// Header, content, padding.
pub(crate) fn with_content(header: &tar::Header, content: &[u8]) -> Vec<u8> {
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = [b" ", key, b"=", value, b"\n"].concat();
    let mut length = body.len() + 1;
    while length.to_string().len() + body.len() != length {
        length += 1;
    }
    [length.to_string().as_bytes(), &body].concat()
}
