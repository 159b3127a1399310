//! The network interface, all of it static: no packet is sent or waited for before commands run.

use std::fs;
use std::io;
use std::path::Path;

use proto::boot::Network;
use sys::rtnetlink::Requests;

use super::BootError;

/// Sets the interface of the configuration up, if there is one.
pub(super) fn set_up(network: Option<&Network>) -> Result<(), BootError> {
    let Some(network) = network else { return Ok(()) };
    let interfaces = Path::new(INTERFACES);
    let found = find(interfaces, network.mac);
    let found = found.map_err(|error| BootError::step("look for the network interface", error))?;
    let (name, index) = found.ok_or(BootError::NoInterface)?;
    // What routers advertise is not asked for and would not be needed.
    fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"), "0")
        .map_err(|error| BootError::step("ignore router advertisements", error))?;
    let step = |error| BootError::step("set up the network", io::Error::other(error));
    requests(index, network).send().map_err(step)
}

/// Where the kernel lists interfaces.
const INTERFACES: &str = "/sys/class/net";

/// The interface's name in the sandbox.
const NAME: &str = "eth0";

fn requests(index: u32, network: &Network) -> Requests {
    let mut requests = Requests::new(index);
    requests.configure(NAME, network.mtu);
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

/// Name and index of the interface with this hardware address.
fn find(interfaces: &Path, mac: [u8; 6]) -> io::Result<Option<(String, u32)>> {
    let [a, b, c, d, e, f] = mac;
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    for interface in fs::read_dir(interfaces)? {
        let interface = interface?;
        let read = |file| fs::read_to_string(interface.path().join(file));
        if read("address").is_ok_and(|found| found.trim_end() == mac) {
            let index = read("ifindex")?.trim_end().parse().map_err(io::Error::other)?;
            return Ok(Some((interface.file_name().to_string_lossy().into_owned(), index)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_by_its_hardware_address() {
        let interfaces = std::env::temp_dir().join(format!("matchlock-interfaces-{}", std::process::id()));
        for (name, address, index) in [("lo", "00:00:00:00:00:00", 1), ("ens3", "02:6d:61:74:63:68", 7)] {
            fs::create_dir_all(interfaces.join(name)).unwrap();
            fs::write(interfaces.join(name).join("address"), format!("{address}\n")).unwrap();
            fs::write(interfaces.join(name).join("ifindex"), format!("{index}\n")).unwrap();
        }
        let mac = [2, 0x6D, 0x61, 0x74, 0x63, 0x68];
        assert_eq!(find(&interfaces, mac).unwrap(), Some(("ens3".to_owned(), 7)));
        assert_eq!(find(&interfaces, [2; 6]).unwrap(), None);
        fs::remove_dir_all(interfaces).unwrap();
    }
}
