//! A guest: an Ethernet station with smoltcp as its TCP/IP, which asks for its gateway as a kernel does.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as Moment;
use smoltcp::wire::{ETHERNET_HEADER_LEN, EthernetAddress, IpCidr, Ipv4Cidr, Ipv6Cidr};

use super::HANG;
use super::cable::Cable;
use super::tap::Tap;
use crate::addresses::{GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6, PREFIX_V4, PREFIX_V6};
use crate::stack::outbox::Outbox;

pub(super) struct Guest {
    interface: Interface,
    card: Card,
    pub(super) sockets: SocketSet<'static>,
    started: Instant,
    port: u16,
}

struct Card {
    cable: Cable,
    outbox: Outbox,
    mtu: u16,
}

impl Guest {
    pub(super) fn new(cable: Cable, mtu: u16) -> Self {
        let mut card = Card { cable, outbox: Outbox::new(), mtu };
        let mut interface =
            Interface::new(Config::new(EthernetAddress(GUEST_MAC).into()), &mut card, Moment::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(GUEST_V4, PREFIX_V4))).unwrap();
            addresses.push(IpCidr::Ipv6(Ipv6Cidr::new(GUEST_V6, PREFIX_V6))).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(GATEWAY_V4).unwrap();
        interface.routes_mut().add_default_ipv6_route(GATEWAY_V6).unwrap();
        let sockets = SocketSet::new(Vec::new());
        Self { interface, card, sockets, started: Instant::now(), port: 20_000 }
    }

    /// Begins to connect.
    pub(super) fn connect(&mut self, to: &str) -> SocketHandle {
        // So small that windows need no scaling: smoltcp loses data before a FIN when it rounds them.
        self.connect_sized(to, 65_535)
    }

    /// The same with buffers of that many bytes.
    pub(super) fn connect_sized(&mut self, to: &str, size: usize) -> SocketHandle {
        let to: SocketAddr = to.parse().unwrap();
        let mut socket =
            tcp::Socket::new(tcp::SocketBuffer::new(vec![0; size]), tcp::SocketBuffer::new(vec![0; size]));
        socket.set_nagle_enabled(false);
        self.port += 1;
        socket.connect(self.interface.context(), to, self.port).unwrap();
        self.sockets.add(socket)
    }

    /// The next connection has the last one's port.
    pub(super) fn reuse_port(&mut self) {
        self.port = 30_000;
    }

    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Moves what there is to move. Whether anything came in.
    pub(super) fn poll(&mut self) -> bool {
        let now = Moment::from_micros(i64::try_from(self.started.elapsed().as_micros()).unwrap());
        let any = self.card.cable.fill();
        self.interface.poll(now, &mut self.card, &mut self.sockets);
        self.card.cable.flush(&mut self.card.outbox);
        any
    }

    /// Works until something has happened.
    pub(super) fn until(&mut self, mut happened: impl FnMut(&mut Self) -> bool) {
        let since = Instant::now();
        while !happened(self) {
            assert!(since.elapsed() < HANG, "it does not happen");
            if !self.poll() {
                let mut ready = [PollFd::new(&self.card.cable, PollFlags::IN)];
                let _ = poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
            }
        }
    }

    /// Works for that many turns in which nothing comes in.
    pub(super) fn idle(&mut self, mut turns: u32) {
        self.until(|guest| {
            if !guest.poll() {
                turns -= 1;
            }
            turns == 0
        });
    }

    /// Connects, and sees it done.
    pub(super) fn connected(&mut self, to: &str) -> SocketHandle {
        let handle = self.connect(to);
        self.until(|guest| guest.socket(handle).state() == tcp::State::Established);
        handle
    }

    /// Sends all of it, taking no notice of what comes back.
    pub(super) fn send(&mut self, handle: SocketHandle, mut data: &[u8]) {
        self.until(|guest| {
            if guest.socket(handle).can_send() {
                let sent = guest.socket(handle).send_slice(data).unwrap();
                data = &data[sent..];
            }
            data.is_empty()
        });
    }

    /// Receives exactly that much.
    pub(super) fn receive(&mut self, handle: SocketHandle, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        let mut filled = 0;
        self.until(|guest| {
            if guest.socket(handle).can_recv() {
                filled += guest.socket(handle).recv_slice(&mut data[filled..]).unwrap();
            }
            filled == length
        });
        data
    }

    /// Whether the connection is gone.
    pub(super) fn closed(&mut self, handle: SocketHandle) {
        self.until(|guest| guest.socket(handle).state() == tcp::State::Closed);
    }

    /// Sends a frame, whatever is in it.
    pub(super) fn frame(&mut self, frame: &[u8]) {
        self.until(|guest| {
            let room = guest.card.outbox.has_room();
            if room {
                guest.card.outbox.frame(frame.len(), |buffer| buffer.copy_from_slice(frame));
            }
            guest.card.cable.flush(&mut guest.card.outbox);
            room
        });
        self.until(|guest| {
            guest.card.cable.flush(&mut guest.card.outbox);
            guest.card.outbox.is_empty()
        });
    }

    /// The next frame that comes, without this guest's TCP/IP seeing it.
    pub(super) fn next_frame(&mut self) -> Vec<u8> {
        let since = Instant::now();
        loop {
            if let Some(frame) = self.card.cable.next() {
                return frame;
            }
            assert!(since.elapsed() < HANG, "no frame comes");
            if !self.card.cable.fill() {
                let mut ready = [PollFd::new(&self.card.cable, PollFlags::IN)];
                let _ = poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
            }
        }
    }

    /// Throws away what comes, until nothing more does.
    pub(super) fn drain(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            while self.card.cable.next().is_some() {}
            if self.card.cable.fill() {
                quiet = 0;
            } else {
                quiet += 1;
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }

    /// Bytes on the link, as they are.
    pub(super) fn link(&self) -> &UnixStream {
        let Cable::Stream(socket, _) = &self.card.cable else { panic!("frames only") };
        socket
    }

    /// The device, for frames of which something is left to be done.
    pub(super) fn tap(&mut self) -> &mut Tap {
        let Cable::Tap(tap, _) = &mut self.card.cable else { panic!("bytes only") };
        tap
    }
}

impl Device for Card {
    type RxToken<'t> = In;
    type TxToken<'t> = Out<'t>;

    fn receive(&mut self, _: Moment) -> Option<(In, Out<'_>)> {
        let frame = self.cable.next()?;
        Some((In(frame), Out(&mut self.outbox)))
    }

    fn transmit(&mut self, _: Moment) -> Option<Out<'_>> {
        self.outbox.has_room().then_some(Out(&mut self.outbox))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET_HEADER_LEN + usize::from(self.mtu);
        capabilities
    }
}

struct In(Vec<u8>);

impl RxToken for In {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Out<'a>(&'a mut Outbox);

impl TxToken for Out<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        self.0.frame(length, f)
    }
}
