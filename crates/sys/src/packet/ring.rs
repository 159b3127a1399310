//! The ring: slots of one size that the kernel fills in turn, each with a header (`struct tpacket2_hdr`),
//! whose status says whose the slot is, then the offload and the frame. Version 2, since version 3 packs
//! frames into blocks and hands a block over only after a while.
//!
//! A sender of UDP fragmentation offload (`VIRTIO_NET_HDR_GSO_UDP`) stops its own ring for good: the kernel,
//! which cannot describe such a frame here, drops it and goes on taking its slot for one that is being filled.
//! No Linux guest has sent it since 4.14.

use std::io;
use std::mem::offset_of;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{LONGEST, OFFLOAD, Offload, set};

/// Bytes of a slot, for the longest frame: its IP packet begins where `tpacket_rcv` of the kernel's
/// `af_packet.c` puts it, after at least 16 bytes for its Ethernet header.
const SLOT: usize = (PACKET_AT + LONGEST - 14).next_multiple_of(libc::TPACKET_ALIGNMENT);
const PACKET_AT: usize = (libc::TPACKET2_HDRLEN + 16).next_multiple_of(libc::TPACKET_ALIGNMENT) + OFFLOAD;
/// Bytes that the kernel allocates at once. It takes a power of two of pages, and no slot is in two
/// blocks: in one of this size three per cent are left over.
const BLOCK: usize = 2 << 20;
/// With this many there is room for more than what a guest sends between two turns of ours; each is the
/// host's memory for as long as the guest runs.
const BLOCKS: usize = 2;
const SLOTS_IN_BLOCK: usize = BLOCK / SLOT;
const SLOTS: usize = SLOTS_IN_BLOCK * BLOCKS;

/// The ring of a socket.
#[derive(Debug)]
pub(super) struct Ring {
    start: *mut u8,
    /// The slot that is filled next.
    next: usize,
}

/// A slot that is ours.
#[derive(Debug)]
pub(super) struct Slot<'r> {
    status: &'r AtomicU32,
    /// What the status was when the slot became ours.
    was: u32,
    /// Everything behind the status.
    rest: &'r mut [u8],
}

// SAFETY: the mapping is the ring's alone, whichever thread has it.
unsafe impl Send for Ring {}

impl Ring {
    /// Gives a socket a ring.
    pub(super) fn new(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let request = libc::tpacket_req {
            tp_block_size: number(BLOCK),
            tp_block_nr: number(BLOCKS),
            tp_frame_size: number(SLOT),
            tp_frame_nr: number(SLOTS),
        };
        set(socket, libc::PACKET_RX_RING, &request)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (size, flags, fd) = (BLOCK * BLOCKS, libc::MAP_SHARED, socket.as_raw_fd());
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: start.cast(), next: 0 })
    }

    /// The next slot, if the kernel has filled it.
    pub(super) fn next(&mut self) -> Option<Slot<'_>> {
        let at = self.next / SLOTS_IN_BLOCK * BLOCK + self.next % SLOTS_IN_BLOCK * SLOT;
        // SAFETY: `next` is below SLOTS, so the slot lies within the mapping.
        let slot = unsafe { self.start.add(at) };
        // SAFETY: it is aligned to 16 bytes, mapped for as long as we are borrowed, and both the kernel
        // and we access these four bytes as a whole only.
        let status = unsafe { AtomicU32::from_ptr(slot.cast()) };
        // Before anything else is read: what the kernel wrote into the slot comes before its status.
        let was = status.load(Ordering::Acquire);
        if was & libc::TP_STATUS_USER == 0 {
            return None;
        }
        self.next = (self.next + 1) % SLOTS;
        // SAFETY: still within the slot.
        let rest = unsafe { slot.add(REST) };
        // SAFETY: the kernel does not touch a slot with this status until it is given back, which is when
        // the borrow ends, and every byte of the mapping has a value.
        let rest = unsafe { std::slice::from_raw_parts_mut(rest, SLOT - REST) };
        Some(Slot { status, was, rest })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: our mapping, of which no slot is borrowed any more.
        unsafe { libc::munmap(self.start.cast(), BLOCK * BLOCKS) };
    }
}

impl Slot<'_> {
    /// Where the frame is, and what is left to be done to it. `None` if it is not within the slot.
    pub(super) fn frame(&self) -> Option<(Range<usize>, Offload)> {
        let start = usize::from(u16::from_ne_bytes(self.field(offset_of!(libc::tpacket2_hdr, tp_mac))?));
        let length = self.length(offset_of!(libc::tpacket2_hdr, tp_snaplen))?;
        let start = start.checked_sub(REST)?;
        let frame = start..start.checked_add(length)?;
        let header = self.rest.get(start.checked_sub(OFFLOAD)?..start)?.first_chunk()?;
        self.rest.get(frame.clone())?;
        Some((frame, Offload::parse(*header)))
    }

    /// Whether the kernel has neither cut the frame off nor taken anything out of it.
    pub(super) fn intact(&self) -> bool {
        let lengths = [offset_of!(libc::tpacket2_hdr, tp_len), offset_of!(libc::tpacket2_hdr, tp_snaplen)];
        let [sent, stored] = lengths.map(|field| self.length(field));
        sent == stored && self.was & libc::TP_STATUS_VLAN_VALID == 0
    }

    /// What is at a place that [`frame`](Self::frame) gave.
    pub(super) fn bytes(&mut self, place: Range<usize>) -> &mut [u8] {
        self.rest.get_mut(place).unwrap_or_default()
    }

    fn length(&self, field: usize) -> Option<usize> {
        usize::try_from(u32::from_ne_bytes(self.field(field)?)).ok()
    }

    fn field<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.rest.get(at.checked_sub(REST)?..)?.first_chunk().copied()
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        // After everything that we did with it.
        self.status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }
}

/// Where in a slot that is which is not its status.
const REST: usize = size_of::<u32>();

fn number(size: usize) -> u32 {
    u32::try_from(size).expect("some megabytes at most")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot as the kernel would leave it.
    fn with<R>(was: u32, lengths: [u32; 2], mac: u16, look: impl FnOnce(&mut Slot<'_>) -> R) -> R {
        let mut rest = vec![0; SLOT - REST];
        rest[..4].copy_from_slice(&lengths[0].to_ne_bytes());
        rest[4..8].copy_from_slice(&lengths[1].to_ne_bytes());
        rest[8..10].copy_from_slice(&mac.to_ne_bytes());
        look(&mut Slot { status: &AtomicU32::new(was), was, rest: &mut rest })
    }

    #[test]
    fn the_ring_has_a_moderate_size_and_little_is_left_over() {
        const {
            assert!(48 <= SLOTS && SLOTS <= 64);
            assert!(BLOCK - SLOTS_IN_BLOCK * SLOT < BLOCK / 25);
            assert!(BLOCK.is_power_of_two());
        }
    }

    #[test]
    fn no_offset_leads_out_of_the_slot() {
        let slot = u32::try_from(SLOT).unwrap();
        for mac in [0, 1, 4, 13, 14, 15, 76, 90, u16::MAX] {
            for length in [0, 1, 60, 65_549, slot - 76, slot - 75, slot, i32::MAX as u32, u32::MAX] {
                let end = usize::try_from(length).unwrap() + usize::from(mac);
                let inside = mac >= 14 && end <= SLOT;
                with(libc::TP_STATUS_USER, [length; 2], mac, |slot| {
                    let frame = slot.frame();
                    assert_eq!(frame.is_some(), inside, "{length} bytes at {mac}");
                    if let Some((place, _)) = frame {
                        assert_eq!(slot.bytes(place).len(), usize::try_from(length).unwrap());
                    }
                });
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_was_tagged_is_told() {
        assert!(with(1, [60, 60], 76, |slot| slot.intact()));
        assert!(!with(1, [61, 60], 76, |slot| slot.intact()));
        assert!(!with(1 | libc::TP_STATUS_VLAN_VALID, [60, 60], 76, |slot| slot.intact()));
        // That others were lost says nothing about this one.
        assert!(with(1 | libc::TP_STATUS_LOSING, [60, 60], 76, |slot| slot.intact()));
    }

    #[test]
    fn a_slot_is_given_back_when_it_is_dropped() {
        let status = AtomicU32::new(libc::TP_STATUS_USER);
        drop(Slot { status: &status, was: libc::TP_STATUS_USER, rest: &mut [] });
        assert_eq!(status.into_inner(), libc::TP_STATUS_KERNEL);
    }
}
