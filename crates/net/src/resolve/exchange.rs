//! Asking name servers: UDP, TCP if the reply does not fit, the next server if one does not answer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use super::{ResolveError, reply};

/// How long one server may take.
const TRY: Duration = Duration::from_secs(2);

/// How long all of them together may take.
const TOTAL: Duration = Duration::from_secs(8);

/// How often each server is asked.
const ROUNDS: usize = 2;

/// Replies that are none of ours, after which a try is given up: somebody is guessing.
const MAX_STRAY: usize = 16;

/// The largest reply over UDP. Servers keep to 512 bytes, as we announce no more; one that does not is
/// asked again over TCP.
const MAX_UDP: usize = 4096;

/// The first reply with a result of any of the servers.
pub(super) async fn ask(servers: &[SocketAddr], question: &Query) -> Result<Message, ResolveError> {
    let end = Instant::now() + TOTAL;
    let mut failed = ResolveError::NoServer;
    for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
        if Instant::now() >= end {
            break;
        }
        match timeout_at(end, once(*server, question)).await {
            Ok(Ok(reply)) => match reply.metadata.response_code {
                ResponseCode::NoError | ResponseCode::NXDomain => return Ok(reply),
                code => failed = ResolveError::Server(code.to_str()),
            },
            Ok(Err(error)) => failed = error,
            Err(_) => failed = ResolveError::TimedOut,
        }
    }
    Err(failed)
}

async fn once(server: SocketAddr, question: &Query) -> Result<Message, ResolveError> {
    let reply = timeout(TRY, over_udp(server, question)).await.map_err(|_| ResolveError::TimedOut)??;
    if !reply.metadata.truncation {
        return Ok(reply);
    }
    timeout(TRY, over_tcp(server, question)).await.map_err(|_| ResolveError::TimedOut)?
}

/// Asks from a port and with a number of its own that nobody can know, and hears that server only.
async fn over_udp(server: SocketAddr, question: &Query) -> Result<Message, ResolveError> {
    let (id, query) = query(question)?;
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut buffer = vec![0; MAX_UDP];
    for _ in 0..MAX_STRAY {
        let length = socket.recv(&mut buffer).await?;
        if let Some(reply) = reply::read(&buffer[..length], id, question) {
            return Ok(reply);
        }
    }
    Err(ResolveError::Malformed)
}

async fn over_tcp(server: SocketAddr, question: &Query) -> Result<Message, ResolveError> {
    let (id, query) = query(question)?;
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(|_| ResolveError::Malformed)?;
    stream.write_all(&[&length.to_be_bytes()[..], &query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; length.into()];
    stream.read_exact(&mut reply).await?;
    let reply = reply::read(&reply, id, question).ok_or(ResolveError::Malformed)?;
    if reply.metadata.truncation { Err(ResolveError::Malformed) } else { Ok(reply) }
}

/// A query with a new random number.
fn query(question: &Query) -> Result<(u16, Vec<u8>), ResolveError> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(question.clone());
    let bytes = message.to_vec().map_err(|_| ResolveError::Malformed)?;
    Ok((message.metadata.id, bytes))
}

impl From<io::Error> for ResolveError {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error.kind())
    }
}
