//! The client against a session.

use api::Explain as _;
use api::forward::{DEFAULT_ADDRESS, Forward};
use api::rpc::{Code, ExecParams, PortForwardParams};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::service;
use crate::client::{Client, ClientError, Event, Mode};
use crate::session;

pub(super) fn connect() -> (Client, JoinHandle<()>) {
    let (service, _) = service();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (reader, writer) = theirs.into_split();
    let session = tokio::spawn(session::run(service, reader, writer, std::future::pending()));
    let (reader, writer) = ours.into_split();
    (Client::new(reader, writer), session)
}

fn command(line: &str) -> ExecParams {
    ExecParams { command: Some(line.into()), ..ExecParams::default() }
}

#[tokio::test]
async fn a_command_reads_writes_and_ends() {
    let (client, _session) = connect();
    let mut cat = client.exec(&command("cat; echo err >&2; exit 4"), Mode::Pipe).await.unwrap();
    assert_eq!(cat.events.next().await.unwrap(), Event::Ready);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| at.wrapping_mul(at) as u8).collect();
    let expected = bytes.clone();
    let mut input = cat.input;
    let feeding = tokio::spawn(async move {
        input.write(&bytes).await.unwrap();
        input.finish().await.unwrap();
    });
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = loop {
        match cat.events.next().await.unwrap() {
            Event::Ready => panic!("twice"),
            Event::Stdout(data) => stdout.extend(data),
            Event::Stderr(data) => stderr.extend(data),
            Event::Ended(exit) => break exit,
        }
    };
    feeding.await.unwrap();
    assert!(stdout == expected);
    assert_eq!((stderr, exit.exit_code), (b"err\n".to_vec(), 4));
    assert!(cat.events.next().await.is_err());
}

#[tokio::test]
async fn failures_keep_their_kind_and_hint() {
    let (client, _session) = connect();
    let params = ExecParams { argv: Some(vec!["/none".into()]), ..ExecParams::default() };
    let mut none = client.exec(&params, Mode::Stream).await.unwrap();
    let Err(ClientError::Remote(failure)) = none.events.next().await else { panic!() };
    assert_eq!((failure.code, failure.exit_code, failure.kind), (Code::EXEC, Some(127), api::Kind::NotFound));
    assert!(failure.hint().is_some());
    let error = client.call::<()>("create", &()).await.unwrap_err();
    assert!(matches!(&error, ClientError::Remote(failure) if failure.code == Code::UNKNOWN_METHOD));
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn signals_sizes_and_cancelling() {
    let (client, _session) = connect();
    // Not SIGINT: shells ignore it for what they start in the background, and for good.
    // No standard error either: the shell tells there that its `sleep` was killed, before or after "usr".
    let line = "exec 2>/dev/null; trap 'echo usr' USR1; echo set; while :; do sleep 0.05; done";
    let mut tty = client.exec(&command(line), Mode::Tty).await.unwrap();
    assert_eq!(tty.events.next().await.unwrap(), Event::Ready);
    assert_eq!(tty.events.next().await.unwrap(), Event::Stdout(b"set\n".to_vec()));
    tty.control.resize(2, 3).await.unwrap();
    tty.control.signal(10).await.unwrap();
    assert_eq!(tty.events.next().await.unwrap(), Event::Stdout(b"usr\n".to_vec()));
    assert!(tty.control.cancel().await.unwrap());
    let error = tty.events.next().await.unwrap_err();
    assert!(matches!(&error, ClientError::Remote(failure) if failure.code == Code::CANCELLED), "{error:?}");
    assert!(!tty.control.cancel().await.unwrap());
}

#[tokio::test]
async fn logs_and_ports() {
    let (client, _session) = connect();
    assert_eq!(client.log().await.unwrap(), super::LOG);
    let forwards = vec![Forward::new(0, 80).unwrap()];
    let bindings = client.port_forward(&PortForwardParams { forwards, addresses: None }).await.unwrap();
    assert_eq!((bindings[0].address, bindings[0].remote_port), (DEFAULT_ADDRESS, 80));
    assert!(super::is_published(bindings[0].local_port.into()));
}

#[tokio::test]
async fn an_owner_that_is_gone_fails_everything() {
    let (client, session) = connect();
    let mut sleep = client.exec(&command("sleep 1000"), Mode::Pipe).await.unwrap();
    assert_eq!(sleep.events.next().await.unwrap(), Event::Ready);
    session.abort();
    assert!(matches!(sleep.events.next().await, Err(ClientError::Gone)));
    assert!(matches!(client.status().await, Err(ClientError::Gone)));
}
