//! The end of what the guest sends, of which smoltcp makes too little.
//!
//! It cuts data off at the window's edge and takes the FIN behind them for good all the same: bytes would be
//! missing, and nobody would know. So the last segment is given to it in two, its data and then its FIN.
//! Behind data that were cut off, a FIN alone is out of order, and is sent again by the guest.
//!
//! It also takes data that come after the FIN. There are none: what such a segment acknowledges counts, and
//! nothing else.

use smoltcp::wire::{IpAddress, IpVersion, Ipv4Packet, Ipv6Packet, TcpPacket};

/// The packet with a FIN, its data without it and it without them. `None` if it is no TCP segment.
pub(super) fn split(packet: &[u8]) -> Option<[Vec<u8>; 2]> {
    let (header, source, destination) = ends(packet)?;
    let mut data = packet.to_vec();
    let mut segment = TcpPacket::new_checked(data.get_mut(header..)?).ok()?;
    segment.set_fin(false);
    segment.fill_checksum(&source, &destination);
    Some([data, without_data(packet)?])
}

/// The packet without its data, which it is behind. `None` if it has none, or is no TCP segment.
pub(super) fn without_data(packet: &[u8]) -> Option<Vec<u8>> {
    let (header, source, destination) = ends(packet)?;
    let segment = TcpPacket::new_checked(packet.get(header..)?).ok()?;
    if segment.payload().is_empty() {
        return None;
    }
    let end = segment.seq_number() + segment.payload().len();
    let headers = header + usize::from(segment.header_len());

    let mut bare = packet.get(..headers)?.to_vec();
    let mut segment = TcpPacket::new_unchecked(bare.get_mut(header..)?);
    segment.set_seq_number(end);
    segment.fill_checksum(&source, &destination);
    let length = u16::try_from(headers).ok()?;
    if source.version() == IpVersion::Ipv4 {
        let mut ip = Ipv4Packet::new_unchecked(&mut bare);
        ip.set_total_len(length);
        ip.fill_checksum();
    } else {
        Ipv6Packet::new_unchecked(&mut bare).set_payload_len(length - u16::try_from(header).ok()?);
    }
    Some(bare)
}

/// How long the IP header is, and what addresses are in it.
fn ends(packet: &[u8]) -> Option<(usize, IpAddress, IpAddress)> {
    match IpVersion::of_packet(packet).ok()? {
        IpVersion::Ipv4 => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            Some((usize::from(ip.header_len()), ip.src_addr().into(), ip.dst_addr().into()))
        }
        IpVersion::Ipv6 => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            Some((ip.header_len(), ip.src_addr().into(), ip.dst_addr().into()))
        }
    }
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
