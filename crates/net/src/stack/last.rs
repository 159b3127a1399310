//! The last segment of one direction, in two: its data, then a FIN.
//!
//! smoltcp cuts data off at the window's edge and takes the FIN behind them for good all the same: bytes
//! would be missing, and nobody would know. The edge may come nearer, since the window is rounded. Behind
//! data that were cut off, a FIN alone is out of order, and is sent again by the guest.

use smoltcp::wire::{IpAddress, IpVersion, Ipv4Packet, Ipv6Packet, TcpPacket};

/// The packet's data and its FIN, each a packet. `None` if it is not what the filter says that it is.
pub(super) fn split(packet: &[u8]) -> Option<[Vec<u8>; 2]> {
    let (header, source, destination) = match IpVersion::of_packet(packet).ok()? {
        IpVersion::Ipv4 => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            (usize::from(ip.header_len()), IpAddress::from(ip.src_addr()), IpAddress::from(ip.dst_addr()))
        }
        IpVersion::Ipv6 => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            (ip.header_len(), IpAddress::from(ip.src_addr()), IpAddress::from(ip.dst_addr()))
        }
    };
    let segment = TcpPacket::new_checked(packet.get(header..)?).ok()?;
    let headers = header + usize::from(segment.header_len());
    let end = segment.seq_number() + segment.payload().len();

    let mut data = packet.to_vec();
    let mut segment = TcpPacket::new_unchecked(data.get_mut(header..)?);
    segment.set_fin(false);
    segment.fill_checksum(&source, &destination);

    let mut fin = packet.get(..headers)?.to_vec();
    let mut segment = TcpPacket::new_unchecked(fin.get_mut(header..)?);
    segment.set_seq_number(end);
    segment.fill_checksum(&source, &destination);
    let length = u16::try_from(headers).ok()?;
    if header == smoltcp::wire::IPV4_HEADER_LEN {
        let mut ip = Ipv4Packet::new_unchecked(&mut fin);
        ip.set_total_len(length);
        ip.fill_checksum();
    } else {
        Ipv6Packet::new_unchecked(&mut fin).set_payload_len(length - u16::try_from(header).ok()?);
    }
    Some([data, fin])
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{TcpControl, TcpSeqNumber};

    use super::*;
    use crate::stack::filter::{self, Frame, Kind};
    use crate::stack::tests::frames::{Segment, guest};

    #[test]
    fn data_and_fin_are_whole_packets() {
        for to in ["192.0.2.7:80", "[2001:db8::7]:80"] {
            let to = to.parse().unwrap();
            let mut sent = Segment::syn(guest(1, to), to);
            (sent.control, sent.acknowledged, sent.payload) = (TcpControl::Fin, Some(5), b"last words");
            let frame = sent.frame();
            let Ok(Frame::Tcp(segment)) = filter::parse(&frame) else { panic!() };
            assert_eq!(segment.kind, Kind::Last);
            let parts = split(segment.packet).unwrap();
            for (part, sequence, fin, payload) in
                [(&parts[0], 1000, false, &b"last words"[..]), (&parts[1], 1010, true, b"")]
            {
                let mut frame = frame[..14].to_vec();
                frame.extend_from_slice(part);
                let Ok(Frame::Tcp(segment)) = filter::parse(&frame) else { panic!() };
                assert_eq!((segment.kind, segment.packet), (Kind::Other, &part[..]));
                let header = if to.is_ipv4() { 20 } else { 40 };
                let tcp = TcpPacket::new_checked(&part[header..]).unwrap();
                assert!(tcp.verify_checksum(&guest(1, to).ip().into(), &to.ip().into()));
                assert_eq!(
                    (tcp.seq_number(), tcp.fin(), tcp.payload()),
                    (TcpSeqNumber(sequence), fin, payload)
                );
            }
        }
    }
}
