//! Ports of this machine that nobody else takes meanwhile.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// A free port that nobody is given who takes any, and that this process has not been given before.
///
/// # Panics
/// When there is none: the kernel can be told to give away all above 1023.
#[must_use]
pub fn quiet_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("/proc is mounted");
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok());
    let first: u16 = first.expect("two ports");
    loop {
        let port = first - 1 - NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port > 1023, "no port below those that are given away ({first}) is free");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
