//! The 512 bytes of a tar header, as POSIX ustar, GNU, star and Version 7 have them.

/// Length of a header, and what content is padded to.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
#[derive(Debug)]
pub(super) struct Header<'a>(&'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// The header in `block`, if its checksum fits. Old writers summed signed bytes.
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Option<Self> {
        let header = Self(block);
        let stored = number(header.field(148, 8))?;
        let summed = |value: fn(u8) -> i64| -> i64 {
            block
                .iter()
                .enumerate()
                .map(|(i, byte)| value(if (148..156).contains(&i) { b' ' } else { *byte }))
                .sum()
        };
        let fits = stored == summed(i64::from) || stored == summed(|byte| i64::from(byte.cast_signed()));
        fits.then_some(header)
    }

    /// The type flag.
    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Permissions; 12 bits.
    pub(super) fn mode(&self) -> Option<u16> {
        Some((number(self.field(100, 8))? & 0o7777) as u16)
    }

    pub(super) fn uid(&self) -> Option<u32> {
        u32::try_from(number(self.field(108, 8))?).ok()
    }

    pub(super) fn gid(&self) -> Option<u32> {
        u32::try_from(number(self.field(116, 8))?).ok()
    }

    /// Bytes of content that follow.
    pub(super) fn size(&self) -> Option<u64> {
        u64::try_from(number(self.field(124, 12))?).ok()
    }

    /// Seconds since 1970.
    pub(super) fn mtime(&self) -> Option<i64> {
        number(self.field(136, 12))
    }

    /// Major and minor number of a device.
    pub(super) fn device(&self) -> Option<(u32, u32)> {
        let part = |offset| u32::try_from(number(self.field(offset, 8))?).ok();
        Some((part(329)?, part(337)?))
    }

    /// The target of a link.
    pub(super) fn link(&self) -> &'a [u8] {
        text(self.field(157, 100))
    }

    /// The path, with POSIX's prefix.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(self.field(0, 100));
        let prefix = match (self.field(257, 6), self.field(508, 4)) {
            // star keeps times in the rest.
            (b"ustar\0", b"tar\0") => text(self.field(345, 131)),
            (b"ustar\0", _) => text(self.field(345, 155)),
            // GNU and Version 7 have none.
            _ => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// Of a GNU sparse file: the first pairs of its map, and whether more follow.
    pub(super) fn sparse_pairs(&self) -> (&'a [u8], bool) {
        (self.field(386, 4 * 24), self.0[482] != 0)
    }

    /// Of a GNU sparse file: its size with the holes.
    pub(super) fn sparse_size(&self) -> Option<u64> {
        u64::try_from(number(self.field(483, 12))?).ok()
    }

    fn field(&self, offset: usize, length: usize) -> &'a [u8] {
        &self.0[offset..offset + length]
    }
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A numeric field: octal digits between spaces and NULs, or, as GNU and star write what octal
/// digits have no room for, a big-endian number whose first bit is set. `None` if it is neither
/// or too large.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field.first()? & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = if negative { field[0] } else { field[0] & 0x7f };
        let start = i64::from(first.cast_signed());
        return field[1..]
            .iter()
            .try_fold(start, |sum, byte| sum.checked_mul(256)?.checked_add(i64::from(*byte)));
    }
    let digits = field.trim_ascii_start();
    let digits = text(digits).trim_ascii_end();
    digits.iter().try_fold(0_i64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"77777777777\0"), Some(0o77_777_777_777));
        assert_eq!(number(b"777777777777"), Some(0o777_777_777_777));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"        "), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\x01"), Some((2 << 32) + 1));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"), Some(-2));
    }

    #[test]
    fn what_is_no_number_or_too_large_is_refused() {
        for wrong in [&b"0000888\0"[..], b"-1      ", b"12 34   ", b"0x10\0\0\0\0"] {
            assert_eq!(number(wrong), None, "{wrong:?}");
        }
        assert_eq!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None);
        assert_eq!(number(b""), None);
    }
}
