//! Random bytes from the host's kernel.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// Fresh random bytes.
///
/// # Errors
/// When the kernel gives none.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes)
}
