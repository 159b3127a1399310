//! One connection: bytes between a client of this machine and a program in the sandbox, both ways,
//! until both ways have ended or one side breaks off.

use std::io;

use tokio::net::TcpStream;
use vmm::Stream;

use crate::agent::Agent;

/// Bytes read from the client at a time.
const CHUNK: usize = 64 * 1024;

/// Moves everything. A client whose connection cannot be made, or is broken off by the sandbox, gets a
/// reset, not an end of file: what it has got is not all.
pub(super) async fn relay(client: TcpStream, agent: &Agent, port: u16) {
    if let Err(error) = try_relay(&client, agent, port).await {
        tracing::debug!(%error, port, "forwarded connection");
        let _ = client.set_zero_linger();
    }
}

async fn try_relay(client: &TcpStream, agent: &Agent, port: u16) -> io::Result<()> {
    // Small answers are not held back; what is large fills its packets anyway.
    client.set_nodelay(true)?;
    let stream = agent.connect(port).await.map_err(io::Error::other)?;
    tokio::try_join!(upload(client, &stream), download(&stream, client)).map(drop)
}

/// From the client to the sandbox. The buffer exists only while there is something in it: connections
/// are many and most of them idle.
async fn upload(client: &TcpStream, stream: &Stream) -> io::Result<()> {
    loop {
        client.readable().await?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match client.try_read(&mut buffer) {
                Ok(0) => {
                    stream.finish();
                    return Ok(());
                }
                Ok(length) => stream.send(&buffer[..length]).await?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
}

/// From the sandbox to the client, straight out of the stream's buffer.
async fn download(stream: &Stream, client: &TcpStream) -> io::Result<()> {
    loop {
        stream.readable().await;
        client.writable().await?;
        match stream.try_take(|bytes| client.try_write(bytes)) {
            Ok(Some(_)) => {}
            Ok(None) => {
                return rustix::net::shutdown(client, rustix::net::Shutdown::Write).map_err(Into::into);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
