//! The multiplexer's headers from a hostile guest: what decodes encodes to the same bytes, and no
//! sequence of them makes the host panic or expect more bytes than one window a stream.

#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use proto::Port;
use proto::class::Class;
use proto::frame::{HEADER_LEN, Header, MAX_PAYLOAD};
use proto::mux::{Event, Mux, Side};

fuzz_target!(|wire: &[u8]| {
    let mut host = Mux::new(Side::Host);
    // The window, and what of it is unread.
    let mut unread = HashMap::new();
    for port in [Port::Exec, Port::Forward] {
        let (ours, _) = host.open(port as u32).expect("nothing is open yet");
        unread.insert(ours, (Class::of_port(port as u32).window(), 0u32));
    }
    for chunk in wire.as_chunks::<HEADER_LEN>().0 {
        let Ok(header) = Header::decode(chunk) else { return };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        assert!(header.payload_len() <= MAX_PAYLOAD as usize);
        match host.receive(header) {
            Ok(Event::Opened { stream, port }) => {
                let before = unread.insert(stream, (Class::of_port(port).window(), 0));
                assert!(before.is_none(), "opened twice");
            }
            Ok(Event::Data { stream, length }) => {
                let (window, unread) = unread.get_mut(&stream).expect("data only comes on an open stream");
                *unread += length;
                assert!(*unread <= *window, "more than the window without our reading");
                // A reader that takes half of what there is whenever something comes.
                let taken = *unread / 2;
                *unread -= taken;
                host.taken(stream, taken as usize);
            }
            Ok(Event::Reset { stream, .. }) => drop(unread.remove(&stream)),
            Ok(_) => {}
            Err(_) => return,
        }
    }
});
