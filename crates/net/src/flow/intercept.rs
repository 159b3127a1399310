//! TLS of the guest's: the name in its ClientHello is what is decided about, and dialled. Its TLS ends here
//! and begins anew towards the host, unless the user has the host's connections passed as they are.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use policy::host::Host;
use policy::{Denial, Permit, Policy, Reason};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::first::{self, First};
use super::refusal::{Alert, Refusal, alert};
use super::{Flow, Rewind, Watched};
use crate::connect::{Alpn, Io};
use crate::http;
use crate::sniff::Protocol;
use crate::tls::hello::{Hello, MAX_WIRE, Malformed, Reader};
use crate::tunnel;
use crate::upstream::DialError;

/// How long a guest may take to say its hello, and then for the rest of its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

type Upstream = tokio_rustls::client::TlsStream<TcpStream>;

/// What is told when the guest does not take our certificate.
const HINT: &str =
    "the guest broke off the TLS handshake (if its client pins certificates, use --passthrough-host)";

impl Flow {
    /// `read` is what the guest has said so far; `upstream` is connected to where it wants to go.
    pub(super) async fn intercept<S: Io + 'static>(
        &mut self,
        mut guest: S,
        mut read: Vec<u8>,
        upstream: TcpStream,
    ) {
        let hello = match timeout(HANDSHAKE_TIMEOUT, hello(&mut guest, &mut read)).await {
            Ok(Ok(Ok(hello))) => hello,
            Ok(Ok(Err(malformed))) => {
                let denial = self.malformed(&malformed);
                self.record.denied(&denial);
                return alert(guest, Alert::DecodeError).await;
            }
            Ok(Err(error)) => return self.record.failed(&error),
            Err(_) => return self.record.failed(&"the guest did not finish its ClientHello in time"),
        };
        let guest = Rewind::new(read, guest);
        let permit = match self.permit(&hello) {
            Ok(permit) => permit,
            Err(denial) => {
                self.record.denied(&denial);
                let Some(name) = hello.sni.clone() else { return alert(guest, Alert::AccessDenied).await };
                return Box::pin(self.refuse(guest, &hello, &name.into(), Refusal::denied(&denial))).await;
            }
        };
        self.record.is_tls(permit.host());
        let passes = hello.sni.as_ref().is_some_and(|name| self.policy().passthrough(name, permit.port()));
        if passes && hello.ech {
            let denial = Denial::new(Reason::EncryptedHello, permit.host(), permit.port());
            self.record.denied(&denial);
            return alert(guest, Alert::AccessDenied).await;
        }
        match self.connection(&permit, upstream).await {
            Ok(upstream) if passes => self.pass(guest, upstream, &permit).await,
            Ok(upstream) => self.terminate(guest, &hello, upstream, permit).await,
            Err(error) if passes => self.record.failed_or_denied(&error),
            Err(error) => Box::pin(self.fail(guest, &hello, &permit, &error)).await,
        }
    }

    /// Whether the host of the hello may be reached, or the destination if there is none in it.
    fn permit(&mut self, hello: &Hello) -> Result<Permit, Denial> {
        let port = self.destination.port();
        match &hello.sni {
            Some(name) => {
                let host = Host::from(name.clone());
                self.record.is_tls(&host);
                self.policy().host(&host, port)
            }
            None => {
                let host = Host::from(self.destination.ip());
                let denied = |denial: Denial| Denial {
                    rule: denial.rule,
                    ..Denial::new(Reason::SniMissing, &host, port)
                };
                self.policy().host(&host, port).map_err(denied)
            }
        }
    }

    fn malformed(&self, malformed: &Malformed) -> Denial {
        let reason = match malformed {
            Malformed::ServerName | Malformed::Address | Malformed::Name(_) | Malformed::Twice(0) => {
                Reason::SniInvalid
            }
            Malformed::Esni => Reason::EncryptedHello,
            _ => Reason::MalformedHello,
        };
        Denial::new(reason, self.record.host(), self.destination.port()).by(malformed.to_string())
    }

    /// A connection to the permitted host: the one to the guest's destination only if that is the host's, as
    /// an address may be shared with hosts that are not allowed, or be nobody's that the guest has made up.
    async fn connection(&self, permit: &Permit, to_destination: TcpStream) -> Result<TcpStream, DialError> {
        if self.is_at_destination(permit) {
            return Ok(to_destination);
        }
        drop(to_destination);
        self.shared.upstream.dial(permit).await
    }

    /// The guest's bytes as they are: it verifies the host's certificate itself.
    async fn pass<S: Io>(&mut self, mut guest: S, mut upstream: TcpStream, permit: &Permit) {
        let allowed = |policy: &Policy| {
            let still = policy.host(permit.host(), permit.port())?;
            let passes = still.host().name().is_some_and(|name| policy.passthrough(name, still.port()));
            if passes { Ok(()) } else { Err(Denial::new(Reason::HostNotAllowed, still.host(), still.port())) }
        };
        let outcome = tunnel::run(&mut guest, &mut upstream, self.terms(allowed, [])).await;
        self.record.ended(&outcome);
    }

    /// Both handshakes, the host's first: the guest is answered only if the host has proved to be who it
    /// is, and with the protocol that it speaks.
    async fn terminate<S: Io + 'static>(
        &mut self,
        guest: S,
        hello: &Hello,
        upstream: TcpStream,
        permit: Permit,
    ) {
        let upstream = match self.shared.upstream.tls(upstream, permit.host(), &offer(hello)).await {
            Ok(upstream) => upstream,
            Err(error) => return Box::pin(self.fail(guest, hello, &permit, &error)).await,
        };
        let agreed = upstream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        let guest = match self.handshake(guest, permit.host(), agreed.as_deref()).await {
            Ok(guest) => guest,
            Err(error) => return self.record.failed(&format_args!("{HINT}: {error}")),
        };
        if agreed.as_deref() == Some(H2) {
            self.https(guest, upstream, permit, Alpn::Http2).await;
        } else {
            self.look_inside(guest, upstream, permit).await;
        }
    }

    /// Answers the guest's handshake as `host`.
    async fn handshake<S: Io>(
        &self,
        guest: S,
        host: &Host,
        agreed: Option<&[u8]>,
    ) -> io::Result<TlsStream<S>> {
        let authority = self.shared.authority.get();
        let config = authority.and_then(|authority| authority.server_config(host, agreed.as_slice()));
        let config = config.map_err(io::Error::other)?;
        timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(guest)).await?
    }

    /// Decides by what is said inside TLS.
    async fn look_inside<G: Io + 'static>(&mut self, mut guest: G, mut upstream: Upstream, permit: Permit) {
        match first::read(&mut guest, &mut upstream).await {
            First::Guest(Protocol::Http1, read) => {
                self.https(Rewind::new(read, guest), upstream, permit, Alpn::Http1).await;
            }
            First::Guest(Protocol::Http2, read) => {
                self.https(Rewind::new(read, guest), upstream, permit, Alpn::Http2).await;
            }
            // TLS inside of TLS is as opaque as anything.
            First::Guest(Protocol::Tls | Protocol::Other, read) => {
                self.relay_inside(Rewind::new(read, guest), upstream, Vec::new(), &permit).await;
            }
            First::Half(read) => {
                let guest = Rewind::new(read, guest);
                let address = upstream.get_ref().0.peer_addr();
                if address.is_ok_and(|address| opaque_inside(&self.policy(), &permit, address).is_ok()) {
                    self.relay_inside(Watched::new(guest), upstream, Vec::new(), &permit).await;
                } else {
                    self.https(guest, upstream, permit, Alpn::Http1).await;
                }
            }
            First::Server { guest: from_guest, server } => {
                self.relay_inside(Rewind::new(from_guest, guest), upstream, server, &permit).await;
            }
            First::Over => self.record.nothing(),
        }
    }

    async fn https<G: Io + 'static>(&self, guest: G, upstream: Upstream, permit: Permit, version: Alpn) {
        let spoken = match upstream.get_ref().1.alpn_protocol() {
            Some(H2) => Alpn::Http2,
            _ => Alpn::Http1,
        };
        let host = permit.host().clone();
        let first = (permit, Box::new(upstream) as Box<dyn Io>, spoken);
        Box::pin(http::serve(guest, version, self.session(Some(host), Some(first)))).await;
    }

    /// What is neither TLS nor HTTP inside of TLS, like IMAP. `greeting` is what the server has said already.
    async fn relay_inside<G: Io>(
        &mut self,
        mut guest: G,
        upstream: Upstream,
        greeting: Vec<u8>,
        permit: &Permit,
    ) {
        let address = match upstream.get_ref().0.peer_addr() {
            Ok(address) => address,
            Err(error) => return self.record.failed(&error),
        };
        let allowed = |policy: &Policy| opaque_inside(policy, permit, address);
        let terms = self.terms(allowed, [permit.host().clone()]);
        let outcome = tunnel::run(&mut guest, &mut Rewind::new(greeting, upstream), terms).await;
        self.record.ended(&outcome);
    }

    /// Tells user and guest that the host cannot be connected to.
    async fn fail<S: Io + 'static>(&self, guest: S, hello: &Hello, permit: &Permit, error: &DialError) {
        self.record.failed_or_denied(error);
        self.refuse(guest, hello, permit.host(), Refusal::failed(permit.host(), error)).await;
    }

    /// Takes the guest's handshake as `host`, and answers its requests with why that is in vain.
    async fn refuse<S: Io + 'static>(&self, guest: S, hello: &Hello, host: &Host, refusal: Refusal) {
        let agreed =
            [H2, HTTP_1_1].into_iter().find(|known| hello.alpn.iter().any(|offered| offered == known));
        if agreed.is_none() && !hello.alpn.is_empty() {
            // It will not speak HTTP.
            return alert(guest, Alert::AccessDenied).await;
        }
        // A guest that does not take our certificate learns no more.
        if let Ok(guest) = self.handshake(guest, host, agreed).await {
            let version = if agreed == Some(H2) { Alpn::Http2 } else { Alpn::Http1 };
            Box::pin(refusal.answer(guest, version)).await;
        }
    }
}

/// Whether what is neither TLS nor HTTP may be exchanged inside TLS with the permitted host, which is at
/// `address`.
fn opaque_inside(policy: &Policy, permit: &Permit, address: SocketAddr) -> Result<(), Denial> {
    let names: Vec<_> = permit.host().name().cloned().into_iter().collect();
    policy.host(permit.host(), permit.port())?;
    policy.opaque(address, &names).map(drop)
}

/// Reads on until the hello is complete.
pub(super) async fn hello<S: AsyncRead + AsyncWrite + Unpin>(
    guest: &mut S,
    read: &mut Vec<u8>,
) -> io::Result<Result<Hello, Malformed>> {
    let mut reader = Reader::default();
    loop {
        match reader.read(read) {
            Ok(Some(hello)) => return Ok(Ok(hello)),
            Err(malformed) => return Ok(Err(malformed)),
            Ok(None) => {}
        }
        let space = MAX_WIRE - read.len();
        if first::more(guest, read, space).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// What to offer the host: what the guest offers of HTTP; if that is nothing, what else it offers, as it
/// speaks something else.
fn offer(hello: &Hello) -> Vec<Vec<u8>> {
    let known = |protocol: &&Vec<u8>| **protocol == H2 || **protocol == HTTP_1_1;
    let http: Vec<_> = hello.alpn.iter().filter(known).cloned().collect();
    if http.is_empty() { hello.alpn.clone() } else { http }
}
