//! A sandbox's flows without its stack, and servers on loopback addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};

use api::event::NetworkEvent;
use api::network::NetworkSpec;
use policy::Policy;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::{Incoming, Shared, serve};
use crate::dns;
use crate::names::Names;
use crate::report::Reporter;
use crate::resolve::{self, Resolver};
use crate::tls::provider;
use crate::upstream::{Roots, Upstream};

pub(super) const GREETING: &[u8] = b"220 ready\r\n";

/// The authority of the servers: the public ones of the world outside.
struct Outside {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

static OUTSIDE: LazyLock<Outside> = LazyLock::new(|| {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().into();
    Outside { issuer: Issuer::new(params, key), certificate }
});

/// What a server does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Sends back what it gets.
    Echo,
    /// The same, after a greeting.
    Greeting,
    /// The same over TLS, its name before the first.
    Tls,
    /// Answers one request with its name.
    Http,
    /// The same over TLS.
    Https,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(kind: Kind, address: &str, names: &[&str]) -> Self {
        Self::run(kind, address, names, &[]).await
    }

    pub(super) async fn start_with_alpn(address: &str, names: &[&str], protocol: &[u8]) -> Self {
        Self::run(Kind::Tls, address, names, &[protocol]).await
    }

    async fn run(kind: Kind, address: &str, names: &[&str], alpn: &[&[u8]]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let acceptor = matches!(kind, Kind::Tls | Kind::Https)
            .then(|| TlsAcceptor::from(Arc::new(server_config(names, alpn))));
        let greeting = match kind {
            Kind::Echo => Vec::new(),
            Kind::Greeting => GREETING.to_vec(),
            Kind::Tls => format!("{}: ", names[0]).into_bytes(),
            Kind::Http | Kind::Https => {
                let (name, length) = (names[0], names[0].len());
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}").into_bytes()
            }
        };
        let greets_first = kind == Kind::Greeting;
        let (inner, counter) = (Arc::clone(&heard), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let (heard, greeting, acceptor) = (Arc::clone(&inner), greeting.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let _ = match acceptor {
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => echo(stream, &greeting, false, &heard).await,
                            Err(error) => Err(error),
                        },
                        None => echo(stream, &greeting, greets_first, &heard).await,
                    };
                });
            }
        });
        Self { address, heard, connections, task }
    }

    /// All that it was sent, by everybody.
    pub(super) fn heard(&self) -> Vec<u8> {
        self.heard.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    greeting: &[u8],
    greets_first: bool,
    heard: &Mutex<Vec<u8>>,
) -> io::Result<()> {
    let mut pending = greeting.to_vec();
    if greets_first && !pending.is_empty() {
        stream.write_all(&std::mem::take(&mut pending)).await?;
    }
    let mut buffer = vec![0; 1000];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return stream.shutdown().await;
        }
        heard.lock().unwrap().extend_from_slice(&buffer[..length]);
        if pending.starts_with(b"HTTP") {
            stream.write_all(&pending).await?;
            return stream.shutdown().await;
        }
        pending.extend_from_slice(&buffer[..length]);
        stream.write_all(&std::mem::take(&mut pending)).await?;
        stream.flush().await?;
    }
}

fn server_config(names: &[&str], alpn: &[&[u8]]) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &OUTSIDE.issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A sandbox's network.
pub(super) struct World {
    shared: Arc<Shared>,
    policy: watch::Sender<Policy>,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<NetworkEvent>>,
}

impl World {
    pub(super) fn sealed(allowed: &[&str], hosts: &[(&str, &str)]) -> Self {
        let allowed_hosts = allowed.iter().map(|&host| host.to_owned()).collect();
        Self::new(&NetworkSpec { allowed_hosts, ..NetworkSpec::default() }, hosts)
    }

    pub(super) fn passing(passthrough: &[&str], hosts: &[(&str, &str)]) -> Self {
        let passthrough_hosts = passthrough.iter().map(|&host| host.to_owned()).collect();
        Self::new(&NetworkSpec { passthrough_hosts, ..NetworkSpec::default() }, hosts)
    }

    pub(super) fn open(hosts: &[(&str, &str)]) -> Self {
        Self::new(&NetworkSpec::default(), hosts)
    }

    fn new(spec: &NetworkSpec, hosts: &[(&str, &str)]) -> Self {
        let hosts: Vec<(IpAddr, String)> =
            hosts.iter().map(|(address, name)| (address.parse().unwrap(), (*name).to_owned())).collect();
        let policy = Policy::compile(spec, &hosts, Default::default()).unwrap();
        let (sender, policy) = watch::channel(policy);
        let (tell, events) = mpsc::unbounded_channel();
        let reporter = Reporter::new(move |event| drop(tell.send(event)));
        // Whoever asks it has a name that it should not ask for.
        let resolver = Resolver::new(resolve::Upstream::Servers(Vec::new()));
        let names = Names::new();
        let mut roots = RootCertStore::empty();
        roots.add(OUTSIDE.certificate.clone()).unwrap();
        let upstream = Upstream::new(resolver.clone(), policy.clone(), Roots::These(Arc::new(roots)));
        let dns = dns::Service::new(policy.clone(), resolver, names.clone(), reporter.clone());
        let shared = Arc::new(Shared {
            policy,
            upstream: Arc::new(upstream),
            names,
            dns: Arc::new(dns),
            authority: Arc::default(),
            reporter,
            callback_socket: None,
        });
        Self { shared, policy: sender, events: tokio::sync::Mutex::new(events) }
    }

    pub(super) fn change(&self, change: impl FnOnce(&Policy) -> Policy) {
        self.policy.send_modify(|policy| *policy = change(policy));
    }

    /// What a flow takes, whatever it does not need boxed aside, bytes.
    pub(super) fn size_of_flow(&self) -> usize {
        let (answer, _) = oneshot::channel();
        let incoming = Guest { destination: "1.1.1.1:1".parse().unwrap(), answer };
        size_of_val(&serve(incoming, Arc::clone(&self.shared)))
    }

    /// The guest connects; `None` if it is refused.
    pub(super) async fn connect(&self, destination: SocketAddr) -> Option<DuplexStream> {
        let (answer, answered) = oneshot::channel();
        let incoming = Guest { destination, answer };
        tokio::spawn(serve(incoming, Arc::clone(&self.shared)));
        answered.await.unwrap()
    }

    /// The guest's TLS, which trusts the sandbox's authority only.
    pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        name: &str,
        alpn: &[&[u8]],
    ) -> io::Result<TlsStream<S>> {
        let certificate =
            CertificateDer::from_pem_slice(self.shared.authority.get().unwrap().certificate_pem().as_bytes());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.unwrap()).unwrap();
        trust(&roots, stream, name, alpn).await
    }

    /// Whom the world outside trusts.
    pub(super) fn server_roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(OUTSIDE.certificate.clone()).unwrap();
        roots
    }

    /// The next thing that is told.
    pub(super) async fn event(&self) -> NetworkEvent {
        self.events.lock().await.recv().await.unwrap()
    }
}

pub(super) async fn trust<S: AsyncRead + AsyncWrite + Unpin>(
    roots: &RootCertStore,
    stream: S,
    name: &str,
    alpn: &[&[u8]],
) -> io::Result<TlsStream<S>> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A guest that sends one byte at a time, and waits for it to be read.
pub(super) struct Dribble {
    inner: DuplexStream,
    waited: bool,
}

impl Dribble {
    pub(super) fn new(inner: DuplexStream) -> Self {
        Self { inner, waited: false }
    }
}

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, space)
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.waited = !self.waited;
        if self.waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_write(cx, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

struct Guest {
    destination: SocketAddr,
    answer: oneshot::Sender<Option<DuplexStream>>,
}

impl Incoming for Guest {
    type Stream = DuplexStream;

    fn destination(&self) -> SocketAddr {
        self.destination
    }

    fn accept(self) -> DuplexStream {
        let (ours, theirs) = duplex(64 * 1024);
        let _ = self.answer.send(Some(theirs));
        ours
    }

    fn refuse(self) {
        let _ = self.answer.send(None);
    }
}

/// A ClientHello with any server name, which no client would send.
pub(super) fn hello(name: Option<&str>, ech: bool) -> Vec<u8> {
    let vector =
        |content: &[u8]| [&u16::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat();
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let entry = [vec![0], vector(name.as_bytes())].concat();
        extensions.extend([vec![0, 0], vector(&vector(&entry))].concat());
    }
    if ech {
        extensions.extend([vec![0xfe, 0x0d], vector(&[0; 16])].concat());
    }
    let body = [&[3, 3][..], &[9; 32], &[0, 0, 2, 0x13, 0x01, 1, 0], &vector(&extensions)].concat();
    let message = [&[1, 0][..], &vector(&body)].concat();
    [&[22, 3, 1][..], &vector(&message)].concat()
}

/// The alert with which the connection ends.
pub(super) async fn alert_of(mut guest: DuplexStream) -> Option<u8> {
    let mut said = Vec::new();
    guest.read_to_end(&mut said).await.unwrap();
    match said.as_slice() {
        [21, 3, 3, 0, 2, 2, alert] => Some(*alert),
        _ => None,
    }
}
