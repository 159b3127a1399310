//! Values of secrets on their way to an owner in the background: in a file without a name, in memory,
//! that it inherits. Arguments and the environment can be read by others, or are passed on.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::RawFd;

use policy::secret::SecretValue;
use rustix::fs::{MemfdFlags, memfd_create};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::network::Values;

/// Writes them to a file that a child process inherits.
pub(super) fn write(values: &Values) -> io::Result<File> {
    let mut bytes = Zeroizing::new(Vec::new());
    for (name, value) in values {
        for text in [name.as_str(), value.expose()] {
            // Neither contains a NUL byte: a name is one of a variable, a value fits into a header.
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(0);
        }
    }
    // Without MFD_CLOEXEC: it is for the child. Nobody else is started by this process.
    let mut file = File::from(memfd_create("matchlock-secrets", MemfdFlags::empty())?);
    file.write_all(&bytes)?;
    Ok(file)
}

/// Reads them, once: nothing of them is left in the file.
pub(super) fn read(descriptor: RawFd) -> Result<Values, Failure> {
    let failed = |error| Failure::io("cannot take over the values of the sandbox's secrets", error);
    let mut file =
        File::options().read(true).write(true).open(format!("/proc/self/fd/{descriptor}")).map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length(&file)).unwrap_or(0)));
    file.read_to_end(&mut bytes).and_then(|_| file.set_len(0)).map_err(failed)?;
    parse(&bytes).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
}

/// So much is reserved that the values are not copied about while they are read.
fn length(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len() + 1)
}

fn parse(bytes: &[u8]) -> Option<Values> {
    let mut values = Values::new();
    let mut texts = bytes.split_inclusive(|byte| *byte == 0).map(|text| text.strip_suffix(&[0]));
    while let Some(name) = texts.next() {
        let name = std::str::from_utf8(name?).ok()?;
        let value = std::str::from_utf8(texts.next()??).ok()?;
        values.insert(name.to_owned(), SecretValue::new(value.to_owned()).ok()?);
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn values_arrive_once_and_leave_nothing() {
        let values: Values = [("A", "one"), ("B", "t=w@o")]
            .map(|(name, value)| (name.to_owned(), SecretValue::new(value.to_owned()).unwrap()))
            .into();
        let file = write(&values).unwrap();
        let read_back = read(file.as_raw_fd()).unwrap();
        let shown: Vec<_> = read_back.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(shown, [("A", "one"), ("B", "t=w@o")]);
        assert_eq!(file.metadata().unwrap().len(), 0);
        assert!(read(file.as_raw_fd()).unwrap().is_empty());
    }

    #[test]
    fn half_a_secret_is_none() {
        for wrong in [&b"A"[..], b"A\0", b"A\0b", b"\xff\0b\0"] {
            assert!(parse(wrong).is_none(), "{wrong:?}");
        }
    }
}
