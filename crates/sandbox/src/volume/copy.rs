//! Copies of sparse files: shared blocks where the file system can, else what is data and no more.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use image::store::Cancel;
use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

/// Bytes copied between two looks at whether to stop.
const CHUNK: u64 = 4 << 20;

/// Makes the empty file `to` a copy of `from`; `false` if it was asked to stop. Tells `progress` how
/// many bytes of about how many are copied.
pub(super) fn copy(
    from: &File,
    to: &File,
    cancel: &Cancel,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<bool> {
    // Whatever the reason that it cannot, copying may still work, and says better why not.
    if ioctl_ficlone(to, from).is_ok() {
        return Ok(true);
    }
    let metadata = from.metadata()?;
    let (length, total) = (metadata.len(), metadata.blocks() * 512);
    to.set_len(length)?;
    let (mut at, mut done) = (0, 0);
    while let Some((start, end)) = next_data(from, at, length)? {
        at = start;
        while at < end {
            if cancel.is_cancelled() {
                return Ok(false);
            }
            let copied = copy_some(from, to, at, (end - at).min(CHUNK))?;
            at += copied;
            done += copied;
            progress(done, total.max(done));
        }
    }
    Ok(!cancel.is_cancelled())
}

/// The next stretch of data at or after `at`.
fn next_data(file: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(start) if start >= length => Ok(None),
        Ok(start) => Ok(Some((start, seek(file, SeekFrom::Hole(start))?.min(length)))),
        // No data until the end.
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn copy_some(from: &File, to: &File, at: u64, length: u64) -> io::Result<u64> {
    let (mut read, mut written) = (at, at);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    match copy_file_range(from, Some(&mut read), to, Some(&mut written), length)? {
        // Somebody has made it shorter.
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        copied => Ok(copied as u64),
    }
}
