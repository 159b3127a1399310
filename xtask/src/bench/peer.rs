//! A bare QEMU whose guest has iperf3 and somebody else's network: slirp, which is in QEMU, or passt.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::site::SELF;
use harness::{Matchlock, Running, Site, tool};
use tempfile::TempDir;

use super::{bare, raw};

/// It takes lines of shell from a port and says there what came of them, and then a line of its own.
const SCRIPT: &str = r#"#!/busybox sh
/busybox mkdir -p /dev /proc /tmp
/busybox mount -t devtmpfs none /dev
/busybox mount -t proc none /proc
/busybox ip link set lo up
/busybox ip link set eth0 mtu $mtu up
/busybox ip addr add $address dev eth0
/busybox ip route add default via $gateway
until [ -c /dev/vport0p1 ]; do /busybox usleep 1000; done
exec 3<>/dev/vport0p1
until read -r greeting <&3; do /busybox usleep 1000; done
echo DONE >&3
while read -r order <&3; do
    /busybox sh -c "$order" >&3 2>&1
    echo DONE >&3
done
"#;

const END: &str = "DONE\n";

/// How long the guest lives: longer than any benchmark.
const LIMIT: Duration = Duration::from_secs(1800);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whose network it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Network {
    /// QEMU's own, `-netdev user`.
    Slirp,
    /// passt, at the other end of a socket.
    Passt,
}

/// The guest.
pub(crate) struct Peer {
    port: BufReader<UnixStream>,
    // In the order in which they end.
    _qemu: Running,
    _passt: Option<Running>,
    _directory: TempDir,
}

impl Peer {
    pub(crate) fn boot(matchlock: &Matchlock, site: &Site, network: Network) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        let cable = path.join("cable");
        let passt = match network {
            Network::Slirp => None,
            Network::Passt => {
                let mut passt = site.command(tool::find("passt"));
                passt.args([
                    "--foreground",
                    "--stderr",
                    "--ipv4-only",
                    "--tcp-ports=none",
                    "--udp-ports=none",
                ]);
                if is_root()? {
                    passt.arg("--runas=0");
                }
                let passt = Running::start(passt.arg("--socket").arg(&cable), LIMIT);
                passt.wait_for_stderr("You can now start qemu");
                Some(passt)
            }
        };
        let [address, gateway, mtu, netdev] = match network {
            Network::Slirp => ["10.0.2.15/24", "10.0.2.2", "1500", "user,id=net0"].map(str::to_owned),
            Network::Passt => [
                // It gives the guest the addresses of this machine.
                format!("{SELF}/24"),
                "45.33.8.1".into(),
                // passt's own default.
                "65520".into(),
                format!("stream,id=net0,server=off,addr.type=unix,addr.path={}", cable.display()),
            ],
        };
        let script = SCRIPT.replace("$address", &address).replace("$gateway", &gateway).replace("$mtu", &mtu);
        let initramfs = bare::initramfs_with(path, &script, &iperf()?)?;
        let socket = path.join("port");
        let listener = UnixListener::bind(&socket)?;
        let mut qemu = bare::qemu(&bare::kernel(matchlock)?, &initramfs, raw::CPU, "rdinit=/script");
        qemu.arg("-chardev").arg(format!("socket,id=channel,path={}", socket.display()));
        qemu.args(["-device", "virtio-serial-device,max_ports=2"]);
        qemu.args(["-device", "virtserialport,chardev=channel"]);
        qemu.args(["-netdev", &netdev, "-device", &format!("virtio-net-device,netdev=net0,host_mtu={mtu}")]);
        let qemu = Running::start(&mut within(site, &qemu), LIMIT);
        let (port, _) = listener.accept()?;
        port.set_read_timeout(Some(PATIENCE))?;
        let port = BufReader::new(port);
        let mut peer = Self { port, _qemu: qemu, _passt: passt, _directory: directory };
        peer.run("hello")?;
        Ok(peer)
    }

    /// What a line of shell says.
    pub(crate) fn run(&mut self, line: &str) -> Result<String> {
        writeln!(self.port.get_ref(), "{line}")?;
        let mut said = String::new();
        while !said.ends_with(END) {
            if self.port.read_line(&mut said)? == 0 {
                bail!("the guest is gone: {said}");
            }
        }
        said.truncate(said.len() - END.len());
        Ok(said)
    }
}

/// The same command, inside.
fn within(site: &Site, command: &Command) -> Command {
    let mut inside = site.command(command.get_program());
    inside.args(command.get_args());
    inside
}

fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

/// iperf3 and what it loads.
fn iperf() -> Result<Vec<PathBuf>> {
    let program = tool::find("iperf3");
    let output = Command::new("ldd").arg(&program).output().context("cannot run ldd")?;
    let libraries = String::from_utf8(output.stdout)?;
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(Into::into);
    Ok(libraries.lines().filter_map(path).chain([program]).collect())
}
