//! Checksums that the guest leaves to its network card: `VIRTIO_NET_HDR_F_NEEDS_CSUM` of the virtio
//! specification (5.1.6.2). Where they are is the guest's word, so nothing follows from it but other bytes
//! in its own frame.

use smoltcp::wire::checksum;

use super::filter::Dropped;

/// Completes the checksum of everything from `start` on. Its field, `offset` bytes further, holds the sum of
/// the pseudo header.
pub(super) fn complete(frame: &mut [u8], start: usize, offset: usize) -> Result<(), Dropped> {
    let covered = frame.get_mut(start..).ok_or(Dropped::Malformed)?;
    let sum = !checksum::data(covered);
    // The same number in this arithmetic, and to UDP zero means that there is none (RFC 768).
    let sum = if sum == 0 { u16::MAX } else { sum };
    let field = covered.get_mut(offset..).and_then(<[u8]>::first_chunk_mut).ok_or(Dropped::Malformed)?;
    *field = sum.to_be_bytes();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;
    use smoltcp::wire::{IpAddress, IpProtocol};

    use super::*;
    use crate::stack::filter::{Frame, Kind, parse};
    use crate::stack::tests::frames::{Segment, guest, udp};

    /// A frame as a guest hands it to a card that completes checksums.
    fn partial(mut frame: Vec<u8>, to: SocketAddr, protocol: IpProtocol, offset: usize) -> (Vec<u8>, usize) {
        let start = if to.is_ipv4() { 34 } else { 54 };
        let length = u32::try_from(frame.len() - start).unwrap();
        let from = IpAddress::from(guest(1, to).ip());
        let sum = checksum::pseudo_header(&from, &to.ip().into(), protocol, length);
        frame[start + offset..start + offset + 2].copy_from_slice(&sum.to_be_bytes());
        (frame, start)
    }

    const ENDS: [&str; 2] = ["192.0.2.7:80", "[2001:db8::7]:80"];

    proptest! {
        #[test]
        fn what_is_completed_is_what_the_guest_would_have_sent(
            payload in prop::collection::vec(any::<u8>(), 0..3000),
            port in 1..u16::MAX,
        ) {
            for to in ENDS {
                let to: SocketAddr = to.parse().unwrap();
                let whole = udp(guest(port, to), to, &payload);
                let (mut frame, start) = partial(whole.clone(), to, IpProtocol::Udp, 6);
                complete(&mut frame, start, 6).unwrap();
                prop_assert_eq!(&frame, &whole);

                let mut segment = Segment::syn(guest(port, to), to);
                (segment.control, segment.payload) = (smoltcp::wire::TcpControl::Fin, &payload);
                segment.acknowledged = Some(5);
                let (mut frame, start) = partial(segment.frame(), to, IpProtocol::Tcp, 16);
                complete(&mut frame, start, 16).unwrap();
                // Of those that end a flow the filter itself verifies it.
                let Ok(Frame::Tcp(parsed)) = parse(&frame) else { panic!() };
                prop_assert!(matches!(parsed.kind, Kind::Last | Kind::Other));
                prop_assert_eq!(frame, segment.frame());
            }
        }

        #[test]
        fn wherever_it_is_said_to_be_nothing_else_changes(
            before in prop::collection::vec(any::<u8>(), 0..200),
            start in prop_oneof![0..250_usize, Just(usize::from(u16::MAX)), Just(usize::MAX)],
            offset in prop_oneof![0..250_usize, Just(usize::from(u16::MAX)), Just(usize::MAX)],
        ) {
            let mut frame = before.clone();
            let within = start.checked_add(offset).and_then(|at| at.checked_add(2)).is_some_and(|end| end <= before.len());
            match complete(&mut frame, start, offset) {
                Ok(()) => {
                    prop_assert!(within);
                    prop_assert_eq!(&frame[..start + offset], &before[..start + offset]);
                    prop_assert_eq!(&frame[start + offset + 2..], &before[start + offset + 2..]);
                }
                Err(why) => {
                    prop_assert!(!within && why == Dropped::Malformed);
                    prop_assert_eq!(frame, before);
                }
            }
        }
    }

    #[test]
    fn a_checksum_of_zero_is_not_taken_for_none() {
        // The sum of the rest is 0xffff, whose complement is zero.
        let mut frame = [0xff, 0xff, 0, 0];
        complete(&mut frame, 0, 2).unwrap();
        assert_eq!(frame, [0xff; 4]);
    }
}
