//! The socket and those who connect to it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::rpc::ExecParams;
use rustix::process::{Uid, geteuid};

use super::{Local, service};
use crate::client::{Client, ClientError, Event, Mode};
use crate::{server, socket};

const NAME: &str = "rpc.sock";

fn private_dir() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
}

fn start(dir: &std::path::Path) -> (Arc<Local>, tokio::task::JoinHandle<()>) {
    let (service, host) = service();
    let listener = socket::bind(dir, NAME).unwrap();
    let mut closed = host.closed.subscribe();
    let serving = tokio::spawn(async move {
        let shutdown = async move {
            let _ = closed.wait_for(|closed| *closed).await;
        };
        server::serve(listener, service, shutdown).await;
    });
    (host, serving)
}

fn command(line: &str) -> ExecParams {
    ExecParams { command: Some(line.into()), ..ExecParams::default() }
}

#[tokio::test]
async fn a_path_longer_than_a_socket_address_works() {
    let dir = private_dir();
    let deep = dir.path().join("d".repeat(200));
    fs::create_dir(&deep).unwrap();
    fs::set_permissions(&deep, Permissions::from_mode(0o700)).unwrap();
    let (_host, _serving) = start(&deep);
    let mode = fs::metadata(deep.join(NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let client = Client::connect(&deep, NAME).await.unwrap();
    assert_eq!(client.status().await.unwrap().pid, std::process::id());
}

#[tokio::test]
async fn a_directory_open_to_other_users_is_refused() {
    let dir = private_dir();
    for mode in [0o755, 0o710, 0o701] {
        fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
        let error = socket::bind(dir.path(), NAME).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    }
}

#[tokio::test]
async fn another_user_is_not_served() {
    let dir = private_dir();
    let (service, _host) = service();
    let listener = socket::bind(dir.path(), NAME).unwrap();
    // As if somebody else listened: whoever connects here is another user to them.
    let somebody = Uid::from_raw(geteuid().as_raw() + 1);
    tokio::spawn(server::serve_user(somebody, listener, service, std::future::pending()));
    let client = Client::connect(dir.path(), NAME).await.unwrap();
    assert!(matches!(client.status().await, Err(ClientError::Gone)));
}

#[tokio::test]
async fn nobody_there_is_told_from_not_allowed() {
    let dir = private_dir();
    let missing = Client::connect(&dir.path().join("none"), NAME).await.unwrap_err();
    assert!(matches!(missing, ClientError::NotRunning(_)), "{missing:?}");
    drop(socket::bind(dir.path(), NAME).unwrap());
    // A child that another test has just forked has the socket too, until it executes its program.
    let patience = Instant::now() + Duration::from_secs(1);
    let dead = loop {
        match Client::connect(dir.path(), NAME).await {
            Ok(_) => assert!(Instant::now() < patience, "somebody listens"),
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(matches!(dead, ClientError::NotRunning(_)), "{dead:?}");
    // The next owner takes the place.
    let (_host, _serving) = start(dir.path());
    Client::connect(dir.path(), NAME).await.unwrap().status().await.unwrap();
}

#[tokio::test]
async fn sessions_do_not_see_each_other() {
    let dir = private_dir();
    let (host, _serving) = start(dir.path());
    let one = Client::connect(dir.path(), NAME).await.unwrap();
    let other = Client::connect(dir.path(), NAME).await.unwrap();
    let mut first = one.exec(&command("cat"), Mode::Pipe).await.unwrap();
    let mut second = other.exec(&command("cat"), Mode::Pipe).await.unwrap();
    assert_eq!(first.events.next().await.unwrap(), Event::Ready);
    assert_eq!(second.events.next().await.unwrap(), Event::Ready);
    // The same identifiers on both.
    first.input.write(b"one").await.unwrap();
    second.input.write(b"other").await.unwrap();
    assert_eq!(first.events.next().await.unwrap(), Event::Stdout(b"one".to_vec()));
    assert_eq!(second.events.next().await.unwrap(), Event::Stdout(b"other".to_vec()));
    drop((one, first));
    host.running(1).await;
    assert!(second.control.cancel().await.unwrap());
    host.running(0).await;
}

#[tokio::test]
async fn sessions_have_a_limit() {
    let dir = private_dir();
    let (_host, _serving) = start(dir.path());
    let mut clients = Vec::new();
    for _ in 0..server::MAX_SESSIONS {
        let client = Client::connect(dir.path(), NAME).await.unwrap();
        client.status().await.unwrap();
        clients.push(client);
    }
    let over = Client::connect(dir.path(), NAME).await.unwrap();
    let error = over.status().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Remote(failure) if failure.kind == api::Kind::LimitExceeded),
        "{error:?}"
    );
    clients.pop();
    let mut free = false;
    while !free {
        free = Client::connect(dir.path(), NAME).await.unwrap().status().await.is_ok();
    }
}

#[tokio::test]
async fn close_ends_the_sandbox_for_everybody() {
    let dir = private_dir();
    let (_host, serving) = start(dir.path());
    let one = Client::connect(dir.path(), NAME).await.unwrap();
    let mut log = one.log_stream().await.unwrap();
    assert!(log.next().await.unwrap().is_some());
    let other = Client::connect(dir.path(), NAME).await.unwrap();
    other.close(None).await.unwrap();
    while log.next().await.unwrap().is_some() {}
    serving.await.unwrap();
    assert!(matches!(one.status().await, Err(ClientError::Gone)));
}
