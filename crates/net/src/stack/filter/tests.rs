use proptest::prelude::*;
use smoltcp::wire::{Icmpv4Repr, Icmpv6Repr, NdiscRepr, NdiscRouterFlags, TcpControl};

use super::*;
use crate::stack::tests::frames::{self, ETHERNET, Segment as Sent, address, guest};

const V4: &str = "192.0.2.7:80";
const V6: &str = "[2001:db8::7]:80";

fn to(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn syn(destination: &str) -> Vec<u8> {
    Sent::syn(guest(2000, to(destination)), to(destination)).frame()
}

fn dropped(frame: &[u8]) -> Dropped {
    parse(frame).expect_err("it is let in")
}

/// Sets the IPv4 header's checksum right again.
fn rechecked(mut frame: Vec<u8>) -> Vec<u8> {
    Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]).fill_checksum();
    frame
}

fn honest() -> Vec<Vec<u8>> {
    vec![
        syn(V4),
        syn(V6),
        frames::udp(guest(2000, to(V4)), to(V4), b"query"),
        frames::udp(guest(2000, to(V6)), to(V6), b"query"),
        frames::who_has_gateway(),
        frames::solicit(GUEST_V6, GATEWAY_V6),
        frames::ping(GATEWAY_V4.into(), b"ping"),
        frames::ping(GATEWAY_V6.into(), b"ping"),
    ]
}

#[test]
fn what_an_honest_guest_sends_is_let_in() {
    for destination in [V4, V6] {
        let frame = syn(destination);
        let Ok(Frame::Tcp(segment)) = parse(&frame) else { panic!() };
        assert_eq!(segment.source, guest(2000, to(destination)));
        assert_eq!(segment.destination, to(destination));
        assert_eq!(segment.kind, Kind::Open { sequence: 1000 });
        assert_eq!(segment.packet, &frame[ETHERNET..]);
        let frame = frames::udp(guest(2000, to(destination)), to(destination), b"query");
        let Ok(Frame::Udp { payload, .. }) = parse(&frame) else { panic!() };
        assert_eq!(payload, b"query");
    }
    assert_eq!(parse(&frames::who_has_gateway()), Ok(Frame::WhoHasGateway));
    let link_local = "fe80::6d:61ff:fe74:6368".parse().unwrap();
    for source in [GUEST_V6, link_local] {
        assert_eq!(parse(&frames::solicit(source, GATEWAY_V6)), Ok(Frame::SolicitGateway { source }));
    }
    for gateway in [IpAddr::V4(GATEWAY_V4), IpAddr::V6(GATEWAY_V6)] {
        let frame = frames::ping(gateway, b"ping");
        assert!(matches!(parse(&frame), Ok(Frame::Ping { .. })));
    }
    // Short frames are padded.
    let mut padded = syn(V4);
    padded.extend([0; 20]);
    let Ok(Frame::Tcp(segment)) = parse(&padded) else { panic!() };
    assert_eq!(segment.packet.len() + 20 + ETHERNET, padded.len());
}

#[test]
fn spoofed_sources_are_dropped() {
    for (from, destination) in [
        ("192.0.2.9:1", V4),
        ("100.127.255.1:1", V4),
        ("0.0.0.0:1", V4),
        ("[2001:db8::9]:1", V6),
        ("[fd6d:6174:6368::1]:1", V6),
        ("[fd6d:6174:6368::3]:1", V6),
        ("[::]:1", V6),
        // Link-local, but not for neighbour discovery.
        ("[fe80::1]:1", V6),
    ] {
        assert_eq!(dropped(&Sent::syn(to(from), to(destination)).frame()), Dropped::Spoofed, "{from}");
        assert_eq!(dropped(&frames::udp(to(from), to(destination), b"")), Dropped::Spoofed, "{from}");
    }
}

#[test]
fn other_stations_are_dropped() {
    for frame in honest() {
        let mut spoofed = frame.clone();
        spoofed[6..12].copy_from_slice(&GATEWAY_MAC);
        assert_eq!(dropped(&spoofed), Dropped::Station);
        let mut elsewhere = frame;
        elsewhere[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        assert_eq!(dropped(&elsewhere), Dropped::Station);
    }
    // An IP packet to everybody, for us: what a router must not forward.
    let mut broadcast = syn(V4);
    broadcast[..6].copy_from_slice(&[0xff; 6]);
    assert_eq!(dropped(&broadcast), Dropped::Station);
    let mut group = syn(V6);
    group[..6].copy_from_slice(&frames::SOLICITED);
    assert_eq!(dropped(&group), Dropped::Destination);
}

#[test]
fn land_attack_and_unreachable_destinations_are_dropped() {
    for destination in [
        "100.127.255.2:2000",
        "100.127.255.0:80",
        "100.127.255.3:80",
        "127.0.0.1:80",
        "0.0.0.0:80",
        "0.1.2.3:80",
        "255.255.255.255:80",
        "224.0.0.251:80",
        "239.255.255.250:80",
        "[fd6d:6174:6368::2]:2000",
        "[fd6d:6174:6368::3]:80",
        "[::1]:80",
        "[::]:80",
        "[ff02::fb]:80",
        "[fe80::1]:80",
    ] {
        let expected = Dropped::Destination;
        assert_eq!(dropped(&syn(destination)), expected, "{destination}");
        let from = guest(2000, to(destination));
        assert_eq!(dropped(&frames::udp(from, to(destination), b"")), expected, "{destination}");
    }
}

#[test]
fn fragments_and_extension_headers_are_dropped() {
    for flags in [[0x20, 0], [0x20, 1], [0, 1], [0x1f, 0xff]] {
        let mut frame = syn(V4);
        frame[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&flags);
        assert_eq!(dropped(&rechecked(frame)), Dropped::Fragment);
    }
    let with_header = |number: u8| {
        let mut frame = syn(V6);
        let first = std::mem::replace(&mut frame[ETHERNET + 6], number);
        frame.splice(ETHERNET + 40..ETHERNET + 40, [first, 0, 0, 0, 0, 0, 0, 0]);
        frame[ETHERNET + 5] += 8;
        frame
    };
    assert_eq!(dropped(&with_header(44)), Dropped::Fragment);
    for number in [0, 43, 60] {
        assert_eq!(dropped(&with_header(number)), Dropped::Header);
    }
    // Source routing and the like.
    let mut frame = syn(V4);
    frame[ETHERNET] = 0x46;
    frame.splice(ETHERNET + 20..ETHERNET + 20, [1, 1, 1, 0]);
    frame[ETHERNET + 3] += 4;
    assert_eq!(dropped(&rechecked(frame)), Dropped::Header);
}

#[test]
fn other_protocols_are_dropped() {
    for protocol in [2, 41, 47, 50, 132, 255] {
        let mut frame = syn(V4);
        frame[ETHERNET + 9] = protocol;
        assert_eq!(dropped(&rechecked(frame)), Dropped::Protocol);
        let mut frame = syn(V6);
        frame[ETHERNET + 6] = protocol;
        assert_eq!(dropped(&frame), Dropped::Protocol);
    }
    // 802.1Q, IPX, LLDP, jumbo lengths.
    for protocol in [0x8100_u16, 0x8137, 0x88cc, 0x05dc] {
        let mut frame = syn(V4);
        frame[12..14].copy_from_slice(&protocol.to_be_bytes());
        assert_eq!(dropped(&frame), Dropped::Protocol);
    }
}

#[test]
fn arp_games_are_dropped() {
    let other = Ipv4Addr::new(100, 127, 255, 3);
    for frame in [
        // For another address, its own among them.
        frames::arp(ArpOperation::Request, (GUEST_MAC, GUEST_V4), other),
        frames::arp(ArpOperation::Request, (GUEST_MAC, GUEST_V4), GUEST_V4),
        // As somebody else, the gateway among them.
        frames::arp(ArpOperation::Request, (GUEST_MAC, other), GATEWAY_V4),
        frames::arp(ArpOperation::Request, (GUEST_MAC, GATEWAY_V4), GATEWAY_V4),
        frames::arp(ArpOperation::Request, (GATEWAY_MAC, GUEST_V4), GATEWAY_V4),
        // Answers to what nobody asked.
        frames::arp(ArpOperation::Reply, (GUEST_MAC, GATEWAY_V4), GUEST_V4),
        frames::arp(ArpOperation::Reply, (GUEST_MAC, GUEST_V4), GATEWAY_V4),
        frames::arp(ArpOperation::Unknown(8), (GUEST_MAC, GUEST_V4), GATEWAY_V4),
    ] {
        assert_eq!(dropped(&frame), Dropped::Arp);
    }
}

#[test]
fn neighbour_discovery_games_are_dropped() {
    let lladdr = Some(EthernetAddress(GUEST_MAC).into());
    let games = [
        NdiscRepr::NeighborAdvert {
            flags: smoltcp::wire::NdiscNeighborFlags::OVERRIDE,
            target_addr: GATEWAY_V6,
            lladdr,
        },
        NdiscRepr::RouterAdvert {
            hop_limit: 64,
            flags: NdiscRouterFlags::empty(),
            router_lifetime: smoltcp::time::Duration::from_secs(100),
            reachable_time: smoltcp::time::Duration::ZERO,
            retrans_time: smoltcp::time::Duration::ZERO,
            lladdr,
            mtu: None,
            prefix_info: None,
        },
        NdiscRepr::RouterSolicit { lladdr },
        NdiscRepr::Redirect { target_addr: GUEST_V6, dest_addr: GATEWAY_V6, lladdr, redirected_hdr: None },
    ];
    for game in games {
        let frame = frames::icmpv6(GUEST_V6, GATEWAY_V6, 255, &Icmpv6Repr::Ndisc(game));
        assert_eq!(dropped(&frame), Dropped::Icmp);
    }
    let other: Ipv6Addr = "fd6d:6174:6368::1:0:1".parse().unwrap();
    assert_eq!(dropped(&frames::solicit(GUEST_V6, other)), Dropped::Icmp);
    assert_eq!(dropped(&frames::solicit(Ipv6Addr::UNSPECIFIED, GATEWAY_V6)), Dropped::Spoofed);
    // From beyond a router.
    let repr = NdiscRepr::NeighborSolicit { target_addr: GATEWAY_V6, lladdr };
    let far = frames::icmpv6(GUEST_V6, GATEWAY_V6, 254, &Icmpv6Repr::Ndisc(repr));
    assert_eq!(dropped(&far), Dropped::Icmp);
}

#[test]
fn icmp_does_not_carry_payloads_out() {
    assert_eq!(dropped(&frames::ping(address("192.0.2.7"), b"tunnel")), Dropped::Icmp);
    assert_eq!(dropped(&frames::ping(address("2001:db8::7"), b"tunnel")), Dropped::Icmp);
    let reply = Icmpv4Repr::EchoReply { ident: 1, seq_no: 1, data: b"tunnel" };
    assert_eq!(dropped(&frames::icmpv4(GATEWAY_V4.into(), &reply)), Dropped::Icmp);
    assert_eq!(dropped(&frames::icmpv4(address("192.0.2.7"), &reply)), Dropped::Icmp);
}

#[test]
fn contradictory_tcp_flags_and_data_in_a_syn_are_dropped() {
    // SYN with FIN, RST, ACK, and all of them.
    for flags in [0x03, 0x06, 0x12, 0x07, 0x3f] {
        let mut frame = syn(V4);
        frame[ETHERNET + 20 + 13] = flags;
        assert_eq!(dropped(&frame), Dropped::Flags);
    }
    let mut early = Sent::syn(guest(2000, to(V4)), to(V4));
    early.payload = b"data before anybody agreed";
    assert_eq!(dropped(&early.frame()), Dropped::Flags);
    for (from, destination) in [(0, V4), (1, "192.0.2.7:0")] {
        let frame = Sent::syn(guest(from, to(destination)), to(destination)).frame();
        assert_eq!(dropped(&frame), Dropped::Malformed);
    }
}

#[test]
fn wrong_checksums_are_dropped() {
    for frame in honest().iter().filter(|frame| frame[12] != 8 || frame[13] != 6) {
        let mut broken = frame.clone();
        *broken.last_mut().unwrap() ^= 1;
        assert_eq!(dropped(&broken), Dropped::Checksum);
    }
    let mut header = syn(V4);
    header[ETHERNET + 8] ^= 1;
    assert_eq!(dropped(&header), Dropped::Checksum);
    // UDP without one: over IPv4 only.
    let mut none = frames::udp(guest(1, to(V4)), to(V4), b"x");
    none[ETHERNET + 26..ETHERNET + 28].fill(0);
    assert!(parse(&none).is_ok());
    let mut none = frames::udp(guest(1, to(V6)), to(V6), b"x");
    none[ETHERNET + 46..ETHERNET + 48].fill(0);
    assert_eq!(dropped(&none), Dropped::Checksum);
    let mut reset = Sent::syn(guest(1, to(V4)), to(V4));
    reset.control = TcpControl::Rst;
    let mut reset = reset.frame();
    assert!(parse(&reset).is_ok());
    reset[ETHERNET + 20 + 4] ^= 1;
    assert_eq!(dropped(&reset), Dropped::Checksum);
}

#[test]
fn truncated_frames_are_dropped() {
    for frame in honest() {
        for length in 0..frame.len() {
            assert!(parse(&frame[..length]).is_err());
        }
    }
}

/// What holds for everything that is let in.
fn check(frame: &[u8]) {
    match parse(frame) {
        Ok(Frame::Tcp(Segment { source, destination, .. }) | Frame::Udp { source, destination, .. }) => {
            assert_eq!(source.ip(), crate::addresses::guest_like(destination.ip()));
            assert!(
                source != destination && !destination.ip().is_loopback() && !destination.ip().is_multicast()
            );
        }
        Ok(Frame::Ping { gateway, .. }) => assert!(is_gateway(gateway)),
        Ok(Frame::WhoHasGateway | Frame::SolicitGateway { .. }) | Err(_) => {}
    }
}

proptest! {
    #[test]
    fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn no_change_of_a_frame_breaks_it(
        which in 0..8_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut frame = honest().swap_remove(which);
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        check(&frame);
        check(&frame[..cut.index(frame.len())]);
    }
}
