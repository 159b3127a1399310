//! A published port, beside the raw channel that its connections share, and beside a connection that
//! never leaves the host.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use harness::Matchlock;
use harness::cache::BUSYBOX;

use super::measure::{Pair, medians};
use super::raw::{BLOCK, Raw, drain, pour};
use super::report::{Report, Row};

const ROUNDS: usize = 10;

/// Blocks that go in one measurement; [`SERVERS`] says it, too.
const BLOCKS: u64 = 128;

/// Echoes that are one measurement.
const ECHOES: u32 = 50;

/// Programs in the guest behind ports 1 to 3: an echo, a source and a sink.
const SERVERS: &str = "
nc -ll -p 1 -e cat &
nc -ll -p 2 -e dd if=/dev/zero bs=256k count=128 &
nc -ll -p 3 -e dd of=/dev/null bs=256k &
wait
";

const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn measure(matchlock: &Matchlock, raw: &mut Raw, report: &mut Report) -> Result<()> {
    let ports = free_ports()?;
    let publish: Vec<String> =
        ports.iter().zip(1..).map(|(local, remote)| format!("{local}:{remote}")).collect();
    let id = matchlock.detached(&["-p", &publish.join(","), "--image", BUSYBOX, "--", "sh", "-c", SERVERS]);
    let [echo, source, sink] = ports;
    let mut forwarded = first_echo(echo)?;
    let mut local = loopback()?;
    let raw = RefCell::new(raw);
    let [echoes, raw_echo, local_echo, out, raw_out, take, raw_take] = medians(
        ROUNDS,
        [
            &mut || bounce(&mut forwarded),
            &mut || raw.borrow_mut().echo(ECHOES),
            &mut || bounce(&mut local),
            &mut || receive(source),
            &mut || raw.borrow_mut().out(BLOCKS),
            &mut || send(sink),
            &mut || raw.borrow_mut().take(BLOCKS),
        ],
    )?;
    let pair = |ours, theirs| Pair { ours, theirs, rounds: ROUNDS };
    let what = "echo of one byte by a `cat` behind a published port";
    report.add(Row::times(what, "echo of one byte over the raw channel", &pair(echoes, raw_echo), "–"));
    report.add(Row::times(what, "a plain loopback connection", &pair(echoes, local_echo), "–"));
    let bytes = BLOCKS * BLOCK;
    report.add(Row::rates(
        "published port, from the guest",
        "raw virtio-serial",
        bytes,
        &pair(out, raw_out),
        "–",
    ));
    report.add(Row::rates(
        "published port, to the guest",
        "raw virtio-serial",
        bytes,
        &pair(take, raw_take),
        "–",
    ));
    let _ = matchlock.run(&["kill", &id]).success();
    let _ = matchlock.run(&["rm", &id]).success();
    Ok(())
}

/// Ports that nobody uses at the moment.
fn free_ports() -> Result<[u16; 3]> {
    let mut ports = [0; 3];
    // All at once, so that they differ.
    let mut listeners = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// A connection to the echo in the guest. It may not listen yet; then the connection ends at once.
fn first_echo(port: u16) -> Result<TcpStream> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let mut stream = connect(port)?;
        if stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0])).is_ok() {
            return Ok(stream);
        }
        thread::sleep(PAUSE);
    }
    bail!("nobody listens in the sandbox")
}

/// A connection to an echo on a thread of ours.
fn loopback() -> Result<TcpStream> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let stream = connect(listener.local_addr()?.port())?;
    let (mut theirs, _) = listener.accept()?;
    theirs.set_nodelay(true)?;
    thread::spawn(move || {
        let mut byte = [0];
        while theirs.read_exact(&mut byte).and_then(|()| theirs.write_all(&byte)).is_ok() {}
    });
    Ok(stream)
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One byte there and back; the mean of some in a row.
fn bounce(stream: &mut TcpStream) -> Result<Duration> {
    let start = Instant::now();
    for _ in 0..ECHOES {
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
    }
    Ok(start.elapsed() / ECHOES)
}

/// From the first byte to the last.
fn receive(port: u16) -> Result<Duration> {
    let (time, bytes) = drain(&mut connect(port)?)?;
    if bytes != BLOCKS * BLOCK {
        bail!("{bytes} bytes came from the guest");
    }
    Ok(time)
}

/// Until the guest has taken the last byte, and its program's end is known.
fn send(port: u16) -> Result<Duration> {
    let mut stream = connect(port)?;
    let start = Instant::now();
    pour(&mut stream, BLOCKS)?;
    stream.shutdown(Shutdown::Write)?;
    drain(&mut stream)?;
    Ok(start.elapsed())
}
