//! The server on a Unix socket: sessions for clients of our own user, and not too many.

use std::time::Duration;

use api::Kind;
use api::rpc::{Code, Failure};
use rustix::process::{Uid, geteuid};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::host::Host;
use crate::service::Service;
use crate::{message, session, socket};

/// Sessions at a time. Stops a user's programs from taking all our memory and descriptors.
pub const MAX_SESSIONS: usize = 64;

/// Before accepting again when that failed: for lack of descriptors, mostly.
const RETRY: Duration = Duration::from_millis(100);

/// Serves everybody who connects until `shutdown`; then the sessions' requests have a moment to
/// answer. Dropping this ends all sessions and all that they started.
pub async fn serve<H: Host>(listener: UnixListener, service: Service<H>, shutdown: impl Future<Output = ()>) {
    serve_user(geteuid(), listener, service, shutdown).await;
}

/// Serves this user and nobody else.
pub(crate) async fn serve_user<H: Host>(
    user: Uid,
    listener: UnixListener,
    service: Service<H>,
    shutdown: impl Future<Output = ()>,
) {
    let mut sessions = JoinSet::new();
    let (stop, stopped) = watch::channel(false);
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = sessions.join_next(), if !sessions.is_empty() => continue,
            () = &mut shutdown => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        if let Err(error) = socket::check_peer(&stream, user) {
            tracing::warn!(%error, "dropped a client");
        } else if sessions.len() >= MAX_SESSIONS {
            refuse(&stream);
        } else {
            let mut stopped = stopped.clone();
            let service = service.clone();
            sessions.spawn(async move {
                let (reader, writer) = stream.into_split();
                let stopped = async move {
                    // An error means that the server is gone.
                    let _ = stopped.wait_for(|stop| *stop).await;
                };
                session::run(service, reader, writer, stopped).await;
            });
        }
    }
    drop(listener);
    let _ = stop.send(true);
    while sessions.join_next().await.is_some() {}
}

/// Tells a client that it is one too many.
fn refuse(stream: &UnixStream) {
    tracing::warn!("dropped a client: {MAX_SESSIONS} are connected");
    let message = format!("more than {MAX_SESSIONS} clients of this sandbox at a time");
    let failure = Failure::new(Code::INVALID_REQUEST, Kind::LimitExceeded, message)
        .with_hint("end some of them: each `exec` and `log -f` is one");
    // It fits into the empty buffer of a new socket.
    let _ = stream.try_write(&message::response(None, &Err(failure)));
}
