//! The link as smoltcp sees it: at most one packet in, packets out while there is room.

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::outbox::Outbox;

/// One turn with the link.
pub(super) struct Port<'a> {
    /// An IP packet that came in.
    pub(super) packet: Option<&'a [u8]>,
    /// Where packets go.
    pub(super) out: &'a mut Outbox,
    /// Bytes of the longest IP packet.
    pub(super) mtu: u16,
    /// Whether something could not be sent for lack of room.
    pub(super) full: bool,
}

impl<'a> Port<'a> {
    pub(super) fn new(packet: Option<&'a [u8]>, out: &'a mut Outbox, mtu: u16) -> Self {
        Self { packet, out, mtu, full: false }
    }
}

impl Device for Port<'_> {
    type RxToken<'t>
        = In<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Out<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(In<'_>, Out<'_>)> {
        let packet = self.packet.take()?;
        Some((In(packet), Out(self.out)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Out<'_>> {
        self.full = !self.out.has_room();
        (!self.full).then_some(Out(self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        // Without Ethernet smoltcp neither answers nor learns hardware addresses: there is nobody to learn of.
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.mtu);
        capabilities
    }
}

/// A packet that came in.
pub(super) struct In<'a>(&'a [u8]);

impl RxToken for In<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a packet that goes out.
pub(super) struct Out<'a>(&'a mut Outbox);

impl TxToken for Out<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        self.0.packet(length, f)
    }
}
