//! How much there can be of what.

use std::net::SocketAddr;

use super::frames::{Segment, guest as end};
use super::hostile::open;
use super::{DEFAULT_MTU, Dropped, bed};
use crate::stack::flow::FLOWS;

#[test]
fn thousands_of_connections_are_open_at_once_and_no_more() {
    let (mut guest, mut host) = bed(DEFAULT_MTU);
    host.serve(async |syn| {
        let _stream = syn.accept();
        std::future::pending::<()>().await;
    });
    let to: SocketAddr = "192.0.2.7:80".parse().unwrap();
    let first = 10_000;
    let last = first + u16::try_from(FLOWS).unwrap();
    let mut ends = Vec::new();
    for port in first..last {
        ends.push(open(&mut guest, end(port, to), to));
    }
    guest.frame(&Segment::syn(end(last, to), to).frame());
    host.wait_dropped(Dropped::Flows, 1);
    // Each of them is there.
    for (port, (ours, theirs)) in (first..last).zip(ends).step_by(97) {
        let data = Segment {
            from: end(port, to),
            to,
            control: smoltcp::wire::TcpControl::Psh,
            sequence: ours,
            acknowledged: Some(theirs),
            window: 64_000,
            payload: b"here",
        };
        guest.frame(&data.frame());
        let answer = guest.next_frame();
        let acknowledged = i32::from_be_bytes(answer[42..46].try_into().unwrap());
        assert_eq!(acknowledged, ours + 4);
    }
}
