//! Ports of a sandbox on this machine: `run --publish` and `port-forward`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use harness::cache::{BUSYBOX, DEBIAN_PYTHON};
use harness::{Matchlock, quiet_port};
use rustix::process::Signal;

/// Echoes on 8080; on 8081 says how many bytes came before the end of the input; on 8082 (IPv6
/// only) says hello.
const SERVERS: &str = r#"
import asyncio, socket
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def count(reader, writer):
    total = 0
    while data := await reader.read(65536):
        total += len(data)
    writer.write(b"%d bytes" % total)
    writer.close()
async def hello(reader, writer):
    writer.write(b"hello over six")
    writer.close()
async def main():
    await asyncio.start_server(echo, "127.0.0.1", 8080, backlog=2000)
    await asyncio.start_server(count, "127.0.0.1", 8081)
    await asyncio.start_server(hello, "::1", 8082)
    print("serving", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"#;

/// A sandbox in the background with the servers above; gives its ID and what it said on standard
/// error.
fn serving(matchlock: &Matchlock, flags: &[&str]) -> (String, String) {
    let command = ["--image", DEBIAN_PYTHON, "--", "python3", "-c", SERVERS];
    let output = matchlock.run(&[&["run", "-d"], flags, &command].concat()).success();
    let id = output.stdout_text().trim().to_owned();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !matchlock.run(&["log", &id]).success().stdout_text().contains("serving") {
        assert!(Instant::now() < deadline, "the servers do not start");
        std::thread::sleep(Duration::from_millis(100));
    }
    (id, output.stderr_text())
}

/// The local port that a line `Forwarding ADDRESS:PORT -> sandbox:REMOTE` names.
fn port(said: &str, address: &str, remote: u16) -> u16 {
    let (start, end) = (format!("Forwarding {address}:"), format!(" -> sandbox:{remote}"));
    let mut ports = said.lines().filter_map(|line| line.strip_prefix(&start)?.strip_suffix(&end));
    let port = ports.next().unwrap_or_else(|| panic!("no {start}…{end} in {said:?}"));
    port.parse().unwrap_or_else(|_| panic!("{port:?} is no port"))
}

fn connect(address: impl Into<IpAddr>, port: u16) -> TcpStream {
    let stream = TcpStream::connect((address.into(), port)).expect("the port is published");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("it is a socket");
    stream
}

fn noise(length: u32) -> Vec<u8> {
    (0..length).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the other side ends it");
    bytes
}

#[test]
fn published_ports_lead_to_the_sandbox_from_every_address() {
    let matchlock = Matchlock::new();
    let (id, said) = serving(
        &matchlock,
        &[
            "--no-network",
            "-p",
            "0:8080",
            "-p",
            "0:8081,0:8082",
            "--address",
            "127.0.0.1",
            "--address",
            "::1",
        ],
    );
    let addresses = [("127.0.0.1", IpAddr::from(Ipv4Addr::LOCALHOST)), ("[::1]", Ipv6Addr::LOCALHOST.into())];
    for (text, address) in addresses {
        let mut echo = connect(address, port(&said, text, 8080));
        echo.write_all(b"there and back").unwrap();
        let mut back = [0; 14];
        echo.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"there and back");
        assert_eq!(read_all(&mut connect(address, port(&said, text, 8082))), b"hello over six");
    }
    let got = matchlock.run(&["get", &id]).success().stdout_text();
    assert!(got.contains("\"remote_port\": 8080"), "{got}");
    let local = port(&said, "127.0.0.1", 8080);
    let _ = matchlock.run(&["kill", &id]).success();
    let error = TcpStream::connect((Ipv4Addr::LOCALHOST, local)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "nobody listens for a sandbox that is gone");
}

#[test]
fn half_closed_connections_stay_open_the_other_way() {
    let matchlock = Matchlock::new();
    let (_id, said) = serving(&matchlock, &["-p", "0:8081"]);
    let mut stream = connect(Ipv4Addr::LOCALHOST, port(&said, "127.0.0.1", 8081));
    stream.write_all(&noise(300_000)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut stream), b"300000 bytes");
}

#[test]
fn bytes_go_through_unchanged_while_another_connection_does_not_read() {
    let matchlock = Matchlock::new();
    let (_id, said) = serving(&matchlock, &["-p", "0:8080"]);
    let local = port(&said, "127.0.0.1", 8080);
    // It sends until nobody takes more, and reads nothing.
    let mut stuck = connect(Ipv4Addr::LOCALHOST, local);
    stuck.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
    while stuck.write(&[0; 16384]).is_ok() {}
    let sent = noise(8_000_000);
    let mut stream = connect(Ipv4Addr::LOCALHOST, local);
    let mut sender = stream.try_clone().unwrap();
    let copy = sent.clone();
    let sending = std::thread::spawn(move || {
        sender.write_all(&copy).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let received = read_all(&mut stream);
    sending.join().unwrap();
    assert!(received == sent, "{} bytes came back", received.len());
}

#[test]
fn a_thousand_connections_at_once_in_bounded_memory() {
    let matchlock = Matchlock::new();
    let (id, said) = serving(&matchlock, &["-p", "0:8080"]);
    let local = port(&said, "127.0.0.1", 8080);
    let mut streams: Vec<TcpStream> = (0..1000).map(|_| connect(Ipv4Addr::LOCALHOST, local)).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        write!(stream, "{number:08}").unwrap();
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut back = [0; 8];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, format!("{number:08}").as_bytes());
    }
    let status = format!("/proc/{}/status", matchlock.owner(&id).as_raw_nonzero());
    let status = std::fs::read_to_string(status).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 128 * 1024, "{kib} KiB");
    let _ = matchlock.run(&["exec", &id, "true"]).success();
}

#[test]
fn a_port_that_nobody_serves_hangs_up() {
    let matchlock = Matchlock::new();
    let id = matchlock.detached(&["-p", "0:9", "--image", BUSYBOX, "--", "sleep", "1000"]);
    let forwarding = matchlock.spawn(&["port-forward", &id, "0:9"]);
    forwarding.wait_for_stderr("sandbox:9");
    let local = port(&forwarding.stderr_so_far(), "127.0.0.1", 9);
    let mut stream = connect(Ipv4Addr::LOCALHOST, local);
    let outcome = stream.read(&mut [0; 1]);
    assert!(matches!(outcome, Ok(0)) || outcome.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
}

#[test]
fn a_port_that_is_taken_is_told_and_leaves_nothing() {
    let matchlock = Matchlock::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let forward = format!("{}:80", taken.local_addr().unwrap().port());
    let output = matchlock.run(&["run", "-d", "-p", &forward, "--image", BUSYBOX, "--", "sleep", "1000"]);
    assert_eq!(output.code, Some(125));
    let text = output.stderr_text();
    assert!(text.contains(&forward[..forward.len() - 3]) && text.contains("in use"), "{text}");
    matchlock.assert_nothing_left();
    for wrong in ["", "0", "80:0", "70000", "80:", "a:b"] {
        let output = matchlock.run(&["run", "-p", wrong, "--image", BUSYBOX, "--", "true"]);
        assert_eq!(output.code, Some(2), "{wrong:?}");
    }
    let id = matchlock.detached(&["--image", BUSYBOX, "--", "sleep", "1000"]);
    let output = matchlock.run(&["port-forward", &id, &forward]);
    assert_eq!(output.code, Some(1));
    assert!(output.stderr_text().contains("in use"), "{}", output.stderr_text());
    assert_eq!(matchlock.run(&["port-forward", &id]).code, Some(2));
    let _ = matchlock.run(&["exec", &id, "true"]).success();
}

#[test]
fn forwarding_lasts_until_it_is_interrupted_or_the_sandbox_ends() {
    let matchlock = Matchlock::new();
    let (id, _) = serving(&matchlock, &[]);
    let forwarding = matchlock.spawn(&["port-forward", &id, "0:8082", "0:8080"]);
    forwarding.wait_for_stderr("sandbox:8080");
    let local = port(&forwarding.stderr_so_far(), "127.0.0.1", 8082);
    assert_eq!(read_all(&mut connect(Ipv4Addr::LOCALHOST, local)), b"hello over six");
    forwarding.signal(Signal::INT);
    let _ = forwarding.wait().success();
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, local)).is_ok() {
        assert!(Instant::now() < deadline, "the owner still listens for a client that is gone");
        std::thread::sleep(Duration::from_millis(50));
    }
    let forwarding = matchlock.spawn(&["port-forward", &id, "0:8080"]);
    forwarding.wait_for_stderr("sandbox:8080");
    let _ = matchlock.run(&["kill", &id]).success();
    assert_eq!(forwarding.wait().code, Some(1), "it ended, and not because somebody wanted that");
}

#[test]
fn a_sandbox_that_starts_again_has_its_ports_again() {
    let matchlock = Matchlock::new();
    let free = quiet_port();
    let (id, _) = serving(&matchlock, &["-p", &format!("{free}:8082")]);
    assert_eq!(read_all(&mut connect(Ipv4Addr::LOCALHOST, free)), b"hello over six");
    let _ = matchlock.run(&["stop", "-t", "0s", &id]).success();
    let _ = matchlock.run(&["start", &id]).success();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut said = Vec::new();
        // The server takes its time; until then the connection is closed at once.
        let _ = connect(Ipv4Addr::LOCALHOST, free).read_to_end(&mut said);
        if said == b"hello over six" {
            break;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(200));
    }
}
