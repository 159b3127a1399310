//! `RNDADDENTROPY` of `<linux/random.h>`: random bytes that the kernel's generator may trust.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Mixes `seed` into the kernel's generator and credits all of its bits.
///
/// # Errors
/// As in `random(4)`; needs `CAP_SYS_ADMIN`.
pub fn credit_entropy(seed: &[u8]) -> io::Result<()> {
    let device = File::open("/dev/random")?;
    for part in seed.chunks(MAX_PART) {
        let mut pool = Pool { bits: 0, bytes: 0, buffer: [0; MAX_PART] };
        pool.bytes = i32::try_from(part.len()).expect("at most MAX_PART");
        pool.bits = pool.bytes * 8;
        pool.buffer[..part.len()].copy_from_slice(part);
        // SAFETY: the kernel reads two numbers and then as many bytes as the second says, all of
        // which are in `pool`.
        if unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const pool) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// `_IOW('R', 0x03, int[2])`.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;

/// Bytes given to the kernel at a time.
const MAX_PART: usize = 64;

/// `struct rand_pool_info`.
#[repr(C)]
struct Pool {
    bits: i32,
    bytes: i32,
    buffer: [u8; MAX_PART],
}
