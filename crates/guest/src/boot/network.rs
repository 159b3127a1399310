//! The network interface, all of it static: no packet is sent or waited for before commands run.

use std::io;

use proto::boot::Network;
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use sys::rtnetlink::Requests;

use super::BootError;

/// The interface's name: the one that the kernel gives the only one there is.
const NAME: &str = "eth0";

/// Sets the interface up as the configuration says, if it says so.
pub(super) fn set_up(network: Option<&Network>) -> Result<(), BootError> {
    let Some(network) = network else { return Ok(()) };
    let index = index().map_err(|error| BootError::step("find the network interface", error))?;
    let step = |error| BootError::step("set up the network", io::Error::other(error));
    requests(index, network).send().map_err(step)
}

fn index() -> Result<u32, Errno> {
    let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    name_to_index(any, NAME)
}

fn requests(index: u32, network: &Network) -> Requests {
    let mut requests = Requests::new(index);
    requests.configure(network.mtu);
    requests.bring_up();
    for (address, prefix) in &network.addresses {
        requests.address(*address, *prefix);
    }
    for gateway in &network.gateways {
        requests.neighbour(*gateway, network.gateway_mac);
        requests.default_route(*gateway);
    }
    requests
}
