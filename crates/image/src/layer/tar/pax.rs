//! The records of a pax extended header: what an entry has that a header has no room for.

use crate::erofs::Timestamp;

use super::sparse::PaxMap;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What pax records say of the entry that follows them.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    /// Names and values.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxMap,
}

impl Extended {
    /// Adds the records in `payload`; the later of two of a name counts. Names that say nothing
    /// about the file system tree are passed over.
    pub(super) fn add(&mut self, mut payload: &[u8]) -> Result<(), &'static str> {
        while !payload.is_empty() {
            let (record, rest) = split_record(payload).ok_or("a pax record's length is wrong")?;
            let at = record.iter().position(|byte| *byte == b'=').ok_or("a pax record has no value")?;
            self.set(&record[..at], &record[at + 1..])?;
            payload = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        // An empty value takes back what an earlier record said.
        let present = !value.is_empty();
        let number = || decimal(value).ok_or("a pax record's number is none");
        let id =
            || number().and_then(|id| u32::try_from(id).map_err(|_| "an owner's number exceeds 32 bits"));
        match key {
            b"path" => self.path = present.then(|| value.to_vec()),
            b"linkpath" => self.link = present.then(|| value.to_vec()),
            b"size" => self.size = present.then(number).transpose()?,
            b"uid" => self.uid = present.then(id).transpose()?,
            b"gid" => self.gid = present.then(id).transpose()?,
            b"mtime" => {
                let time = || timestamp(value).ok_or("a pax record's time is none");
                self.mtime = present.then(time).transpose()?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(name, value)?;
                }
            }
        }
        Ok(())
    }
}

/// Splits `<length> <key>=<value>\n` off, the length being that of all of it.
fn split_record(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = payload.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&payload[..space])?).ok()?;
    let (record, rest) = payload.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    Some((record, rest))
}

/// A number in decimal digits, and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Seconds with a fraction, `-1.5`; what is finer than nanoseconds is cut off.
fn timestamp(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanos = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, _) => Timestamp { seconds, nanos },
        (true, 0) => Timestamp { seconds: -seconds, nanos },
        // The nanoseconds count upwards from the second before.
        (true, _) => Timestamp { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_nanoseconds_before_1970_too() {
        for (text, seconds, nanos) in [
            ("0", 0, 0),
            ("1700000000.123456789", 1_700_000_000, 123_456_789),
            ("1.5", 1, 500_000_000),
            ("1.", 1, 0),
            ("1.0000000019", 1, 1),
            ("-1", -1, 0),
            ("-1.5", -2, 500_000_000),
            ("-0.25", -1, 750_000_000),
        ] {
            assert_eq!(timestamp(text.as_bytes()), Some(Timestamp { seconds, nanos }), "{text}");
        }
        for wrong in ["", "-", ".5", "1.x", "1e9", "+1", "99999999999999999999"] {
            assert_eq!(timestamp(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn records_may_hold_any_bytes_and_the_last_counts() {
        let mut extended = Extended::default();
        extended.add(b"9 path=a\n9 path=b\n32 SCHILY.xattr.user.x=\n=\0\xff\nyyy\n").unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"b"[..]));
        assert_eq!(extended.xattrs, [(b"user.x".to_vec(), b"\n=\0\xff\nyyy".to_vec())]);
        extended.add(b"8 path=\n").unwrap();
        assert_eq!(extended.path, None);
    }

    #[test]
    fn records_of_wrong_lengths_are_refused() {
        for wrong in [
            &b"9 path=ab\n"[..],
            b"8 path=a\n",
            b"99 path=a\n",
            b"path=a\n",
            b"0 \n",
            b"3 \n",
            b"-9 path=a\n",
        ] {
            assert!(Extended::default().add(wrong).is_err(), "{wrong:?}");
        }
    }
}
