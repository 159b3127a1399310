//! Setting up a network interface: `rtnetlink(7)`, as in `<linux/rtnetlink.h>` and `<linux/if_link.h>`.

use std::ffi::CStr;
use std::io;
use std::net::IpAddr;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use thiserror::Error;

/// What the kernel is to do, in this order, for one interface.
#[derive(Debug)]
pub struct Requests {
    index: u32,
    bytes: Vec<u8>,
    /// What each request is for.
    purposes: Vec<&'static str>,
}

/// The kernel did not do what it was asked for.
#[derive(Debug, Error)]
#[error("{purpose}")]
pub struct RequestError {
    /// What it was to do.
    pub purpose: &'static str,
    /// What it said.
    pub source: io::Error,
}

impl Requests {
    /// None yet, for the interface with this index.
    #[must_use]
    pub fn new(index: u32) -> Self {
        Self { index, bytes: Vec::new(), purposes: Vec::new() }
    }

    /// Brings up whatever interface has this name by then, without ARP, with this MTU and with a queue of so many
    /// packets, which `netdevice(7)` has for nobody but the real root.
    #[must_use]
    pub fn silent_link(name: &CStr, mtu: u16, queue: u32) -> Self {
        let mut requests = Self::new(0);
        let mut message = requests.link(libc::IFF_UP | libc::IFF_NOARP);
        message.attribute(libc::IFLA_IFNAME, name.to_bytes_with_nul());
        message.attribute(libc::IFLA_MTU, &u32::from(mtu).to_ne_bytes());
        message.attribute(libc::IFLA_TXQLEN, &queue.to_ne_bytes());
        requests.add("bring the interface up", libc::RTM_NEWLINK, 0, &message);
        requests
    }

    /// Gives the interface, which must be down, its MTU, and keeps the kernel from making up a link-local
    /// address for it: without one it asks for no routers either.
    pub fn configure(&mut self, mtu: u16) {
        let mut message = self.link(0);
        message.attribute(libc::IFLA_MTU, &u32::from(mtu).to_ne_bytes());
        message.nested(libc::IFLA_AF_SPEC, |specific| {
            specific.nested(AF_INET6, |inet6| {
                inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        });
        self.add("configure the interface", libc::RTM_NEWLINK, 0, &message);
    }

    /// Brings the interface up.
    pub fn bring_up(&mut self) {
        let message = self.link(libc::IFF_UP);
        self.add("bring the interface up", libc::RTM_NEWLINK, 0, &message);
    }

    /// Adds an address, to be used at once and without asking whether somebody else has it.
    pub fn address(&mut self, address: IpAddr, prefix: u8) {
        let nodad = if address.is_ipv6() { libc::IFA_F_NODAD } else { 0 };
        let flags = u8::try_from(nodad).expect("one of the first eight");
        // struct ifaddrmsg
        let mut message = Message(vec![family(address), prefix, flags, libc::RT_SCOPE_UNIVERSE]);
        message.0.extend(self.index.to_ne_bytes());
        message.attribute(libc::IFA_LOCAL, &octets(address));
        message.attribute(libc::IFA_ADDRESS, &octets(address));
        self.add("add an address", libc::RTM_NEWADDR, NEW, &message);
    }

    /// Says once and for all which hardware address a neighbour has.
    pub fn neighbour(&mut self, address: IpAddr, mac: [u8; 6]) {
        // struct ndmsg
        let mut message = Message(vec![family(address), 0, 0, 0]);
        message.0.extend(self.index.to_ne_bytes());
        message.0.extend(libc::NUD_PERMANENT.to_ne_bytes());
        message.0.extend([0, libc::RTN_UNICAST]);
        message.attribute(libc::NDA_DST, &octets(address));
        message.attribute(libc::NDA_LLADDR, &mac);
        self.add("add a neighbour", libc::RTM_NEWNEIGH, NEW, &message);
    }

    /// Makes a neighbour the next hop for everything that is nowhere else.
    pub fn default_route(&mut self, gateway: IpAddr) {
        // struct rtmsg
        let mut message = Message(vec![family(gateway), 0, 0, 0]);
        let (table, scope) = (libc::RT_TABLE_MAIN, libc::RT_SCOPE_UNIVERSE);
        message.0.extend([table, libc::RTPROT_STATIC, scope, libc::RTN_UNICAST, 0, 0, 0, 0]);
        message.attribute(libc::RTA_GATEWAY, &octets(gateway));
        message.attribute(libc::RTA_OIF, &self.index.to_ne_bytes());
        self.add("add a default route", libc::RTM_NEWROUTE, NEW, &message);
    }

    /// Has the kernel do all of it, and waits until it has. Allocates nothing, so that a child may do it
    /// between `fork` and `exec`.
    ///
    /// # Errors
    /// As in `rtnetlink(7)`, for the first request that failed; needs `CAP_NET_ADMIN`.
    pub fn send(&self) -> Result<(), RequestError> {
        let talk = |source: rustix::io::Errno| RequestError {
            purpose: "talk to the kernel's network",
            source: source.into(),
        };
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, NETLINK_ROUTE);
        let socket = socket.map_err(talk)?;
        send(&socket, &self.bytes, SendFlags::empty()).map_err(talk)?;
        for &purpose in &self.purposes {
            // An error carries the request again.
            let mut answer = [0; 4096];
            let (length, _) = recv(&socket, &mut answer, RecvFlags::empty()).map_err(talk)?;
            outcome(&answer[..length]).map_err(|source| RequestError { purpose, source })?;
        }
        Ok(())
    }

    /// `struct ifinfomsg`: these flags are to be set, no other is to be changed.
    fn link(&self, flags: i32) -> Message {
        let flags = flags.cast_unsigned();
        let mut message = Message(vec![0; 4]);
        for word in [self.index, flags, flags] {
            message.0.extend(word.to_ne_bytes());
        }
        message
    }

    fn add(&mut self, purpose: &'static str, kind: u16, flags: i32, message: &Message) {
        let flags = flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        let flags = u16::try_from(flags).expect("all flags are 16 bits");
        let length = u32::try_from(HEADER + message.0.len()).expect("messages are short");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        // Answers come in the order of the requests, so these need no numbers; nor does the socket.
        self.bytes.extend([0; 8]);
        self.bytes.extend(&message.0);
        self.purposes.push(purpose);
    }
}

/// What is to be made, whatever is there already.
const NEW: i32 = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;

/// Protocol number 0.
const NETLINK_ROUTE: Option<rustix::net::Protocol> = None;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

const AF_INET6: u16 = 10;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

/// A message after its `struct nlmsghdr`. Its length is always a multiple of four.
#[derive(Debug)]
struct Message(Vec<u8>);

impl Message {
    /// `struct rtattr` and its value.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("values are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// An attribute that consists of attributes.
    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self(Vec::new());
        fill(&mut inner);
        self.attribute(kind, &inner.0);
    }
}

/// What an acknowledgement says: a `struct nlmsghdr`, then 0 or a negative error number.
fn outcome(answer: &[u8]) -> io::Result<()> {
    let number = answer.get(HEADER..).and_then(|body| body.first_chunk()).copied().map(i32::from_ne_bytes);
    match number {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    u8::try_from(family).expect("2 or 10")
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn requests_have_the_form_that_the_kernel_reads() {
        let mut requests = Requests::new(2);
        requests.address([10, 0, 0, 2].into(), 30);
        let expected = b"\x28\0\0\0\x14\0\x05\x05\0\0\0\0\0\0\0\0\x02\x1e\0\0\x02\0\0\0\
                         \x08\0\x02\0\x0a\0\0\x02\x08\0\x01\0\x0a\0\0\x02";
        assert_eq!(requests.bytes, expected);

        let mut requests = Requests::new(2);
        requests.configure(1500);
        let expected = b"\x38\0\0\0\x10\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\
                         \x08\0\x04\0\xdc\x05\0\0\
                         \x10\0\x1a\0\x0c\0\x0a\0\x05\0\x08\0\x01\0\0\0";
        assert_eq!(requests.bytes, expected);

        let requests = Requests::silent_link(c"tap0", 1500, 128);
        let expected = b"\x3c\0\0\0\x10\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x81\0\0\0\x81\0\0\0\
                         \x09\0\x03\0tap0\0\0\0\0\x08\0\x04\0\xdc\x05\0\0\x08\0\x0d\0\x80\0\0\0";
        assert_eq!(requests.bytes, expected);
    }

    #[test]
    fn a_refusal_names_the_request() {
        let mut requests = Requests::new(u32::MAX);
        requests.neighbour([127, 0, 0, 1].into(), [0; 6]);
        let error = requests.send().unwrap_err();
        assert_eq!(error.purpose, "add a neighbour");
        // Without CAP_NET_ADMIN nobody even looks whether there is such an interface.
        let kinds = [Some(libc::ENODEV), Some(libc::EPERM), Some(libc::EINVAL)];
        assert!(kinds.contains(&error.source.raw_os_error()), "{:?}", error.source);
    }

    #[test]
    fn answers_of_any_length_are_read() {
        assert_eq!(outcome(&[0; 20]).map_err(|error| error.kind()), Ok(()));
        assert!(outcome(&[0; 19]).is_err());
        assert!(outcome(&[]).is_err());
        let refused = [[0; 16].as_slice(), &(-libc::EEXIST).to_ne_bytes()].concat();
        assert_eq!(outcome(&refused).unwrap_err().raw_os_error(), Some(libc::EEXIST));
    }
}
