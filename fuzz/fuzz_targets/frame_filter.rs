//! Ethernet frames of the guest's: what is let in is the guest's own, and to somebody who can be reached.

#![no_main]

use libfuzzer_sys::fuzz_target;
use net::addresses::{guest_like, is_gateway};
use net::stack::filter::{Frame, parse};

fuzz_target!(|frame: &[u8]| {
    let (source, destination) = match parse(frame) {
        Ok(Frame::Tcp(segment)) => (segment.source, segment.destination),
        Ok(Frame::Udp { source, destination, .. }) => (source, destination),
        Ok(Frame::Ping { gateway, .. }) => return assert!(is_gateway(gateway)),
        Ok(Frame::WhoHasGateway | Frame::SolicitGateway { .. }) | Err(_) => return,
    };
    assert_eq!(source.ip(), guest_like(destination.ip()));
    assert_ne!(source.ip(), destination.ip());
    assert!(!destination.ip().is_loopback() && !destination.ip().is_multicast());
    assert!(source.port() != 0 && destination.port() != 0);
});
