//! A network interface for a child: a TAP device in its own network namespace, whose frames come out at a
//! packet socket that is ours.
//!
//! All of it is made in the child, because only there the capabilities for it can be had without root.
//! The host's kernel knows of nobody behind the device: it has no address, asks for none and
//! answers nothing, so that what goes over it is between the VMM and us. The namespace, and
//! with it the device, goes with the last of the child and that socket.
//!
//! ABI: `linux/if_tun.h`.

use std::ffi::{CStr, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::net::netdevice::name_to_index;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socket_with,
};

use super::child::{check, write_file};
use crate::rtnetlink::Requests;
use crate::{packet, tap};

/// An interface to be made: its only name, [`Tap::NAME`], and what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tap {
    /// The most bytes of one IP packet: at most 65521, the longest frame less its header.
    pub mtu: u16,
}

impl Tap {
    /// What the VMM knows it by.
    pub const NAME: &str = "tap0";
}

/// The same for the kernel.
const NAME: &CStr = c"tap0";

/// Frames that wait for the VMM to take them: what a guest that reads nothing can make the host's kernel keep,
/// 8 MiB. When they are that many, our side is told so and waits.
const QUEUE: u32 = 128;

const TUNSETPERSIST: libc::c_ulong = 0x4004_54CB;
const TUNSETOWNER: libc::c_ulong = 0x4004_54CC;

/// In the parent: what gives the interface all that it has, and brings it up.
pub(super) fn requests(tap: Tap) -> Requests {
    Requests::silent_link(NAME, tap.mtu, QUEUE)
}

/// In the child, in its new namespaces and with all capabilities there. Only makes system calls. Sends
/// the packet socket over `to`.
pub(super) fn make(requests: &Requests, to: RawFd) -> Option<()> {
    // Before there is a device, so that it never says a word. Without IPv6 there is nothing to turn off.
    for setting in
        [c"/proc/sys/net/ipv6/conf/all/disable_ipv6", c"/proc/sys/net/ipv6/conf/default/disable_ipv6"]
    {
        if exists(setting) {
            write_file(setting, c"1")?;
        }
    }
    let device = noted(tap::open(NAME))?;
    // So that it can be opened again without capabilities, which the VMM has not.
    // SAFETY: a call without pointers.
    let owner = unsafe { libc::geteuid() };
    for (request, argument) in [(TUNSETOWNER, libc::c_ulong::from(owner)), (TUNSETPERSIST, 1)] {
        // SAFETY: these requests take a number.
        check(unsafe { libc::ioctl(device.as_raw_fd(), request, argument) })?;
    }
    noted(requests.send().map_err(|error| error.source))?;
    // Any socket serves to ask.
    let any = noted(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None))?;
    let index = noted(name_to_index(&any, Tap::NAME))?;
    let packets = noted(packet::open(index))?;
    send(packets.as_raw_fd(), to)
}

/// Leaves the error where the child's report takes it from.
fn noted<T, E: Into<io::Error>>(result: Result<T, E>) -> Option<T> {
    result
        .map_err(|error| {
            // SAFETY: a call without pointers.
            let errno = unsafe { libc::__errno_location() };
            // SAFETY: where this thread's `errno` is.
            unsafe { *errno = error.into().raw_os_error().unwrap_or_default() };
        })
        .ok()
}

fn exists(path: &CStr) -> bool {
    // SAFETY: the path is a C string.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}

/// `struct cmsghdr` with one descriptor, padded as `CMSG_SPACE` demands.
#[repr(C)]
struct Rights {
    length: usize,
    level: c_int,
    kind: c_int,
    descriptor: c_int,
    padding: c_int,
}

/// Sends a descriptor with one byte.
fn send(descriptor: RawFd, to: RawFd) -> Option<()> {
    let rights = Rights {
        length: size_of::<Rights>() - size_of::<c_int>(),
        level: libc::SOL_SOCKET,
        kind: libc::SCM_RIGHTS,
        descriptor,
        padding: 0,
    };
    let part = libc::iovec { iov_base: (&raw const rights.padding).cast_mut().cast(), iov_len: 1 };
    // SAFETY: the structure is plain pointers and numbers, for all of which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = (&raw const part).cast_mut();
    message.msg_iovlen = 1;
    message.msg_control = (&raw const rights).cast_mut().cast();
    message.msg_controllen = size_of::<Rights>() as _;
    // SAFETY: the message and all that it points to live, and are only read.
    let sent = unsafe { libc::sendmsg(to, &raw const message, 0) };
    (sent == 1).then_some(())
}

/// In the parent: the packet socket that the child has sent.
pub(super) fn receive(from: &impl AsFd) -> io::Result<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(from, &mut [io::IoSliceMut::new(&mut [0])], &mut rights, flags)?;
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(descriptor) = descriptors.next()
        {
            return Ok(descriptor);
        }
    }
    Err(io::Error::other("no socket came from the child"))
}
