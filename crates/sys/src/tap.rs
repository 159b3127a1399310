//! TAP devices: network interfaces whose other end is a file. `TUNSETIFF` of `<linux/if_tun.h>`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// Opens the TAP device of this name in this network namespace, which is made if there is none and then
/// ends with the file. Every frame in the file is after a `struct virtio_net_hdr`.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] if no interface can have that name, otherwise as for
/// `/dev/net/tun` in the kernel's `tuntap.rst`; needs `CAP_NET_ADMIN`.
pub fn open(name: &CStr) -> io::Result<OwnedFd> {
    let name = name.to_bytes_with_nul();
    // SAFETY: the structure is plain bytes and numbers, for all of which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.get_mut(..name.len()).ok_or(io::ErrorKind::InvalidInput)?;
    for (to, from) in room.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).expect("fifteen bits");
    let file = device()?;
    // SAFETY: the request is a whole `ifreq` with a NUL-terminated name and its flags set.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// Whether TAP devices can be opened here, by whoever may make them in some network namespace.
///
/// # Errors
/// As in `open(2)` for `/dev/net/tun`.
pub fn try_device() -> io::Result<()> {
    device().map(drop)
}

fn device() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(c"/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        assert_eq!(open(c"sixteen-letters!").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
