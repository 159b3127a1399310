use std::collections::BTreeMap;

use api::network::{NetworkSpec, SecretSpec};
use policy::host::Host;
use policy::{Reason, SecretValue};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::direction::MIN_BUFFER;
use super::*;

const VALUE: &str = "a-value-that-nobody-may-see";

fn policy() -> Policy {
    let secret = SecretSpec {
        placeholder: policy::secret::placeholder([7; 16]),
        hosts: vec!["own.example".to_owned()],
        mask: true,
    };
    let spec =
        NetworkSpec { secrets: BTreeMap::from([("KEY".to_owned(), secret)]), ..NetworkSpec::default() };
    let value = SecretValue::new(VALUE.to_owned()).unwrap();
    Policy::compile(&spec, &[], BTreeMap::from([("KEY".to_owned(), value)])).unwrap()
}

fn denial() -> Denial {
    Denial::new(Reason::SecretReflected, "own.example", 1)
}

struct Open {
    guest: DuplexStream,
    server: DuplexStream,
    policy: watch::Sender<Policy>,
    outcome: JoinHandle<Outcome>,
}

/// A tunnel between two streams that hold `room` bytes each.
fn open(room: usize) -> Open {
    let (sender, receiver) = watch::channel(policy());
    let permit = receiver.borrow().host(&Host::parse("own.example").unwrap(), 443).unwrap();
    let scanners = receiver.borrow().secrets().leak_scanner(&permit).into_iter().collect();
    let (guest, mut inside) = duplex(room);
    let (mut outside, server) = duplex(room);
    let outcome = tokio::spawn(async move {
        let allowed = |policy: &Policy| policy.host(permit.host(), permit.port()).map(drop);
        let terms = Terms { policy: receiver, allowed: Box::new(allowed), scanners, leak: denial() };
        run(&mut inside, &mut outside, terms).await
    });
    Open { guest, server, policy: sender, outcome }
}

async fn read_all(stream: &mut DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn each_direction_ends_on_its_own() {
    let mut tunnel = open(64);
    tunnel.guest.write_all(b"question").await.unwrap();
    tunnel.guest.shutdown().await.unwrap();
    assert_eq!(read_all(&mut tunnel.server).await, b"question");
    tunnel.server.write_all(b"a longer answer").await.unwrap();
    tunnel.server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut tunnel.guest).await, b"a longer answer");
    let outcome = tunnel.outcome.await.unwrap();
    assert!(matches!(outcome, Outcome { sent: 8, received: 15, end: End::Closed }), "{outcome:?}");
}

#[tokio::test]
async fn a_value_that_comes_back_cut_into_bytes_ends_the_tunnel_before_its_beginning_is_gone() {
    let mut tunnel = open(1024);
    let server = tunnel.server;
    let sending = tokio::spawn(async move {
        let (_, mut server) = tokio::io::split(server);
        for byte in format!("before {VALUE} after").bytes() {
            if server.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    let got = read_all(&mut tunnel.guest).await;
    let got = String::from_utf8(got).unwrap();
    assert!("before a-v".starts_with(&got), "{got}");
    let outcome = tunnel.outcome.await.unwrap();
    assert!(matches!(outcome.end, End::Denied(leak) if leak == denial()));
    sending.await.unwrap();
}

#[tokio::test]
async fn a_change_that_does_not_concern_it_leaves_it() {
    let mut tunnel = open(64);
    tunnel.policy.send_modify(|policy| *policy = policy.add(&["another.example".parse().unwrap()]));
    tunnel.guest.write_all(b"x").await.unwrap();
    let mut got = [0];
    tunnel.server.read_exact(&mut got).await.unwrap();
    drop(tunnel.policy);
    // The network ends with whoever owns its policy.
    assert!(matches!(tunnel.outcome.await.unwrap().end, End::Left));
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_tunnel_ends_and_one_that_is_used_does_not() {
    let mut tunnel = open(64);
    for _ in 0..3 {
        sleep(IDLE - Duration::from_secs(1)).await;
        tunnel.guest.write_all(b"x").await.unwrap();
        let mut got = [0];
        tunnel.server.read_exact(&mut got).await.unwrap();
    }
    assert!(matches!(tunnel.outcome.await.unwrap(), Outcome { sent: 3, end: End::Left, .. }));
}

#[tokio::test]
async fn a_server_that_is_gone_breaks_the_tunnel() {
    let mut tunnel = open(64);
    drop(tunnel.server);
    tunnel.guest.write_all(b"x").await.unwrap();
    assert!(matches!(tunnel.outcome.await.unwrap().end, End::Broken(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_goes_in_comes_out(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40_000), 0..8), room in 1usize..70_000) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut tunnel = open(room.max(100));
            let all = parts.concat();
            let mut guest = tunnel.guest;
            let sending = tokio::spawn(async move {
                for part in parts {
                    guest.write_all(&part).await.unwrap();
                }
                guest.shutdown().await.unwrap();
                guest
            });
            assert_eq!(read_all(&mut tunnel.server).await, all);
            drop(sending.await.unwrap());
        });
    }

    #[test]
    fn what_only_begins_like_a_value_comes_out(
        parts in prop::collection::vec((0..VALUE.len(), "[a-v]{0,3}", 0..2 * MIN_BUFFER), 0..12), room in 1usize..70_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut tunnel = open(room);
            let parts = parts.into_iter().map(|(length, other, zeros)| {
                [&vec![0; zeros], &VALUE.as_bytes()[..length], other.as_bytes()].concat()
            });
            let parts: Vec<_> = parts.collect();
            let all = parts.concat();
            prop_assume!(!all.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()));
            let mut server = tunnel.server;
            let sending = tokio::spawn(async move {
                for part in parts {
                    server.write_all(&part).await.unwrap();
                    tokio::task::yield_now().await;
                }
                server.shutdown().await.unwrap();
                server
            });
            assert_eq!(read_all(&mut tunnel.guest).await, all);
            drop(sending.await.unwrap());
            Ok(())
        })?;
    }
}
