//! The raw channel: a bare QEMU with one virtio-serial port, whose guest does nothing but move bytes
//! through it. That is the floor of everything that goes between host and guest.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use harness::{Matchlock, Running};
use tempfile::TempDir;

use super::bare;

/// What the guest does: it takes orders from the port, a line each, and answers there. The port's file
/// appears late, and until the host's end is known it is at its end.
const SCRIPT: &str = r"#!/busybox sh
/busybox mkdir -p /dev
/busybox mount -t devtmpfs none /dev
until [ -c /dev/vport0p1 ]; do /busybox usleep 1000; done
exec 3<>/dev/vport0p1
until read -r greeting <&3; do /busybox usleep 1000; done
echo >&3
while read -r order count <&3; do
    case $order in
    out) /busybox dd if=/dev/zero bs=256k count=$count >&3 2>/dev/null ;;
    pipe) /busybox dd if=/dev/zero bs=256k count=$count 2>/dev/null | /busybox cat >&3 ;;
    in) /busybox dd of=/dev/null bs=256k count=$count iflag=fullblock <&3 2>/dev/null; echo >&3 ;;
    echo) /busybox dd bs=1 count=$count <&3 >&3 2>/dev/null ;;
    esac
done
";

/// The CPU that our driver asks for under TCG, without the instructions that QEMU is slow at.
pub(crate) const CPU: &str = "max,erms=off,fsrm=off";

/// Bytes that the guest moves in one system call.
pub(crate) const BLOCK: u64 = 256 * 1024;

/// How long the guest lives: longer than any benchmark.
const LIMIT: Duration = Duration::from_secs(600);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The guest behind the raw channel.
pub(crate) struct Raw {
    port: UnixStream,
    _qemu: Running,
    _directory: TempDir,
}

impl Raw {
    pub(crate) fn boot(matchlock: &Matchlock) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let initramfs = bare::initramfs(directory.path(), SCRIPT)?;
        let socket = directory.path().join("port");
        let listener = UnixListener::bind(&socket)?;
        let mut qemu = bare::qemu(&bare::kernel(matchlock)?, &initramfs, CPU, "rdinit=/script");
        qemu.arg("-chardev").arg(format!("socket,id=channel,path={}", socket.display()));
        qemu.args(["-device", "virtio-serial-device,max_ports=2"]);
        qemu.args(["-device", "virtserialport,chardev=channel"]);
        let qemu = Running::start(&mut qemu, LIMIT);
        let (port, _) = listener.accept()?;
        port.set_read_timeout(Some(PATIENCE))?;
        writeln!(&port, "hello")?;
        let mut raw = Self { port, _qemu: qemu, _directory: directory };
        raw.answer()?;
        Ok(raw)
    }

    /// One byte there and back; the mean of `count` in a row.
    pub(crate) fn echo(&mut self, count: u32) -> Result<Duration> {
        writeln!(self.port, "echo {}", count + 1)?;
        // The first starts the program that answers.
        self.bounce()?;
        let start = Instant::now();
        for _ in 0..count {
            self.bounce()?;
        }
        Ok(start.elapsed() / count)
    }

    fn bounce(&mut self) -> Result<()> {
        self.port.write_all(b"x")?;
        self.answer()
    }

    /// Blocks from the guest, from the first byte to the last.
    pub(crate) fn out(&mut self, blocks: u64) -> Result<Duration> {
        self.receive("out", blocks)
    }

    /// The same, where the program that makes them writes into a pipe that another one reads.
    pub(crate) fn out_of_pipe(&mut self, blocks: u64) -> Result<Duration> {
        self.receive("pipe", blocks)
    }

    fn receive(&mut self, order: &str, blocks: u64) -> Result<Duration> {
        writeln!(self.port, "{order} {blocks}")?;
        let (time, bytes) = drain(&mut (&self.port).take(blocks * BLOCK))?;
        if bytes < blocks * BLOCK {
            bail!("the raw channel broke off");
        }
        Ok(time)
    }

    /// Blocks to the guest.
    pub(crate) fn take(&mut self, blocks: u64) -> Result<Duration> {
        writeln!(self.port, "in {blocks}")?;
        let start = Instant::now();
        pour(&mut self.port, blocks)?;
        self.answer()?;
        Ok(start.elapsed())
    }

    fn answer(&mut self) -> Result<()> {
        Ok(self.port.read_exact(&mut [0])?)
    }
}

/// Reads to the end: the time from the first byte to the last, and how many there were.
pub(crate) fn drain(source: &mut impl Read) -> Result<(Duration, u64)> {
    let mut buffer = vec![0; BLOCK as usize];
    let mut bytes = source.read(&mut buffer)? as u64;
    let start = Instant::now();
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok((start.elapsed(), bytes)),
            length => bytes += length as u64,
        }
    }
}

/// Writes blocks of zeros.
pub(crate) fn pour(target: &mut impl Write, blocks: u64) -> Result<()> {
    let block = vec![0; BLOCK as usize];
    for _ in 0..blocks {
        target.write_all(&block)?;
    }
    Ok(())
}
