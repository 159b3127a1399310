//! Whole frames from and to a network device: `packet(7)`. What comes in lies in a ring of memory that
//! the kernel fills (`packet_mmap.rst` of the kernel's documentation), since a socket's own buffer is
//! limited for the whole host, to a few of the longest frames, and what does not fit is lost.

mod ring;

use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, sendmsg, socket_with,
};

use ring::{Ring, Slot};

/// Bytes of the longest frame that is received whole: the longest IP packet in Ethernet.
pub const LONGEST: usize = 14 + 65_535;

/// Length of `struct virtio_net_hdr`, which is before every frame.
const OFFLOAD: usize = 10;

/// A packet socket on a device, with its ring. Nobody else may have the socket: whoever does can write
/// into the ring.
#[derive(Debug)]
pub struct PacketSocket {
    ring: Ring,
    socket: OwnedFd,
}

/// A frame where the kernel has put it. The place is the kernel's again when this is dropped.
#[derive(Debug)]
pub struct Received<'r> {
    slot: Slot<'r>,
    frame: Range<usize>,
    /// What its sender has left to be done.
    pub offload: Offload,
    /// Whether it is what was sent: neither too long for its place nor relieved of a VLAN tag.
    pub intact: bool,
}

/// What the sender of a frame has left to be done: `struct virtio_net_hdr` of `<linux/virtio_net.h>`.
/// Nothing in it is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// A checksum that is not complete.
    pub checksum: Option<Checksum>,
    /// Whether the frame is to be cut into several.
    pub batch: Batch,
}

/// A checksum whose field holds the sum of the pseudo header only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    /// Where in the frame the bytes begin that it covers, up to the end.
    pub start: usize,
    /// Where it is, counted from there.
    pub offset: usize,
}

/// What a frame is that is longer than what its device would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Batch {
    /// Nothing of the kind.
    #[default]
    No,
    /// Several TCP segments in one.
    Tcp,
    /// Several datagrams in one, or something unknown.
    Other,
}

/// A packet socket that gets every frame that comes from the interface with this index, which must be up.
///
/// # Errors
/// As in `packet(7)`; needs `CAP_NET_RAW`.
pub fn open(index: u32) -> io::Result<OwnedFd> {
    // Without a protocol it gets nothing, from no interface, before it is bound.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    // SAFETY: the structure is plain numbers, for all of which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("17");
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).expect("3").to_be();
    address.sll_ifindex = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let length = libc::socklen_t::try_from(size_of_val(&address)).expect("20");
    // SAFETY: a whole `sockaddr_ll` and its length.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

impl PacketSocket {
    /// Takes a socket as [`open`] makes it, in whatever network namespace it is. It needs no capability.
    ///
    /// # Errors
    /// As in `packet(7)`, if it is another kind of socket or the ring cannot be made.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let version = libc::c_int::try_from(libc::tpacket_versions::TPACKET_V2 as u32).expect("1");
        set(socket.as_fd(), libc::PACKET_VERSION, &version)?;
        set(socket.as_fd(), libc::PACKET_VNET_HDR, &ON)?;
        set(socket.as_fd(), libc::PACKET_IGNORE_OUTGOING, &ON)?;
        // A queue in between would take frames that the device then loses, and never say so.
        set(socket.as_fd(), libc::PACKET_QDISC_BYPASS, &ON)?;
        let ring = Ring::new(socket.as_fd())?;
        Ok(Self { ring, socket })
    }

    /// The next frame, if there is one. What finds the ring full is lost.
    pub fn receive(&mut self) -> Option<Received<'_>> {
        let slot = self.ring.next()?;
        let Some((frame, offload)) = slot.frame() else {
            return Some(Received { slot, frame: 0..0, offload: Offload::default(), intact: false });
        };
        let intact = slot.intact();
        Some(Received { slot, frame, offload, intact })
    }

    /// Sends a frame, if the device takes it now. If it does not, nothing says when it will. One that is
    /// longer than the device ever takes is lost.
    ///
    /// # Errors
    /// [`io::ErrorKind::NetworkDown`] once the device is down or gone, otherwise as in `packet(7)`.
    pub fn send(&self, frame: &[u8]) -> io::Result<bool> {
        let parts = [IoSlice::new(&[0; OFFLOAD]), IoSlice::new(frame)];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match sendmsg(&self.socket, &parts, &mut SendAncillaryBuffer::default(), flags) {
                // Longer than its MTU: an answer to what the guest sent must not end the link.
                Ok(_) | Err(Errno::MSGSIZE) => return Ok(true),
                Err(Errno::INTR) => {}
                // The device's queue is full, or nobody has the device open yet.
                Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(false),
                Err(Errno::NXIO) => return Err(Errno::NETDOWN.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for PacketSocket {
    /// Readable when there is a frame; in error once the device is down or gone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Received<'_> {
    /// The frame.
    pub fn frame(&mut self) -> &mut [u8] {
        self.slot.bytes(self.frame.clone())
    }
}

impl Offload {
    fn parse(header: [u8; OFFLOAD]) -> Self {
        let [flags, kind, _, _, _, _, start @ .., offset_low, offset_high] = header;
        // In the host's byte order, whatever the guest's.
        let checksum = (flags & NEEDS_CSUM != 0).then(|| Checksum {
            start: u16::from_ne_bytes(start).into(),
            offset: u16::from_ne_bytes([offset_low, offset_high]).into(),
        });
        let batch = match kind & !GSO_ECN {
            GSO_NONE => Batch::No,
            GSO_TCPV4 | GSO_TCPV6 => Batch::Tcp,
            _ => Batch::Other,
        };
        Self { checksum, batch }
    }
}

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;
const ON: libc::c_int = 1;

/// Sets an option of a packet socket.
fn set<T: Copy>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).expect("options are short");
    let value: *const T = value;
    // SAFETY: the value is as long as is said, and only read.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, value.cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offload_is_read_field_by_field() {
        let mut header = [0; OFFLOAD];
        assert_eq!(Offload::parse(header), Offload::default());
        header[0] = NEEDS_CSUM;
        header[1] = GSO_TCPV6 | GSO_ECN;
        header[6..8].copy_from_slice(&54_u16.to_ne_bytes());
        header[8..10].copy_from_slice(&16_u16.to_ne_bytes());
        let checksum = Some(Checksum { start: 54, offset: 16 });
        assert_eq!(Offload::parse(header), Offload { checksum, batch: Batch::Tcp });
        // Its validity is said by another flag, for what is complete already.
        header[0] = 2;
        header[1] = 3;
        assert_eq!(Offload::parse(header), Offload { checksum: None, batch: Batch::Other });
    }

    #[test]
    fn another_kind_of_socket_is_refused() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(PacketSocket::new(socket.into()).is_err());
    }
}
