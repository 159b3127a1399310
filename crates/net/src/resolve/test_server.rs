//! A name server for tests, on loopback over UDP and TCP: it answers as the test says, true or false.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, HTTPS, SVCB, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// A query that came.
pub(crate) struct Ask {
    pub(crate) query: Message,
    pub(crate) over_tcp: bool,
    /// How many queries of this type came before it.
    pub(crate) before: usize,
}

impl Ask {
    pub(crate) fn name(&self) -> Name {
        self.query.queries[0].name().clone()
    }

    pub(crate) fn kind(&self) -> RecordType {
        self.query.queries[0].query_type()
    }

    /// An answer with these records of what was asked for; those of another family are left out.
    pub(crate) fn reply(&self, records: Vec<Record>) -> Message {
        let mut reply = Message::response(self.query.metadata.id, self.query.metadata.op_code);
        reply.add_query(self.query.queries[0].clone());
        let wanted = |record: &Record| match record.record_type() {
            kind @ (RecordType::A | RecordType::AAAA) => kind == self.kind(),
            _ => true,
        };
        reply.add_answers(records.into_iter().filter(wanted));
        reply
    }

    pub(crate) fn addresses(&self, addresses: &[&str]) -> Message {
        self.reply(addresses.iter().map(|address| record(&self.name(), 60, address)).collect())
    }

    pub(crate) fn code(&self, code: ResponseCode) -> Message {
        let mut reply = self.reply(Vec::new());
        reply.metadata.response_code = code;
        reply
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// An address of a name.
pub(crate) fn record(owner: &Name, ttl: u32, address: &str) -> Record {
    let data = match address.parse().unwrap() {
        IpAddr::V4(address) => RData::A(address.into()),
        IpAddr::V6(address) => RData::AAAA(address.into()),
    };
    Record::from_rdata(owner.clone(), ttl, data)
}

pub(crate) fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

pub(crate) fn text(owner: &Name, text: &str) -> Record {
    Record::from_rdata(owner.clone(), 60, RData::TXT(TXT::new(vec![text.to_owned()])))
}

pub(crate) fn https(owner: &Name) -> Record {
    Record::from_rdata(owner.clone(), 60, RData::HTTPS(HTTPS(SVCB::new(1, Name::root(), Vec::new()))))
}

type Behaviour = dyn Fn(&Ask) -> Vec<Vec<u8>> + Send + Sync;

struct Served {
    behaviour: Box<Behaviour>,
    asked: Mutex<Vec<(Name, RecordType)>>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    served: Arc<Served>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// One that sends what `behaviour` says, if anything.
    pub(crate) async fn raw(behaviour: impl Fn(&Ask) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The same port may be taken for TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let served = Arc::new(Served { behaviour: Box::new(behaviour), asked: Mutex::default() });
        let tasks =
            vec![tokio::spawn(serve_udp(udp, served.clone())), tokio::spawn(serve_tcp(tcp, served.clone()))];
        Self { address, served, tasks }
    }

    /// One that answers.
    pub(crate) async fn new(behaviour: impl Fn(&Ask) -> Message + Send + Sync + 'static) -> Self {
        Self::raw(move |ask| vec![behaviour(ask).to_vec().unwrap()]).await
    }

    /// What was asked of it.
    pub(crate) fn asked(&self) -> Vec<(Name, RecordType)> {
        self.served.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Served {
    fn answer(&self, bytes: &[u8], over_tcp: bool) -> Vec<Vec<u8>> {
        let query = Message::from_vec(bytes).unwrap();
        let (name, kind) = (query.queries[0].name().clone(), query.queries[0].query_type());
        let before = {
            let mut asked = self.asked.lock().unwrap();
            asked.push((name, kind));
            asked.iter().filter(|(_, other)| *other == kind).count() - 1
        };
        (self.behaviour)(&Ask { query, over_tcp, before })
    }
}

async fn serve_udp(socket: UdpSocket, served: Arc<Served>) {
    let mut buffer = vec![0; 65536];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        for reply in served.answer(&buffer[..length], false) {
            socket.send_to(&reply, from).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener, served: Arc<Served>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        // One that asks and goes away is its own business.
        let _ = one(stream, &served).await;
    }
}

async fn one(mut stream: TcpStream, served: &Served) -> std::io::Result<()> {
    let mut query = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut query).await?;
    for reply in served.answer(&query, true) {
        stream.write_u16(reply.len().try_into().unwrap()).await?;
        stream.write_all(&reply).await?;
    }
    Ok(())
}
