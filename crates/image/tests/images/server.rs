//! An HTTP server that does what a test says, well or badly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::example::{Blob, Example};

/// A request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// How to answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    cut: Option<usize>,
    /// Say nothing for so long after so many bytes of the body; after none, say not even the head.
    stall: Option<(usize, Duration)>,
    /// Send the body again and again, without a length.
    endless: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None, stall: None, endless: false }
    }

    pub(crate) fn blob(blob: &Blob) -> Self {
        Self::new(200, blob.bytes.clone()).with("content-type", &blob.media_type)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    pub(crate) fn stall(mut self, after: usize, time: Duration) -> Self {
        self.stall = Some((after, time));
        self
    }

    pub(crate) fn endless(mut self) -> Self {
        self.endless = true;
        self
    }

    fn send(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", self.status);
        if !self.endless {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some((0, time)) = self.stall {
            thread::sleep(time);
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        let end = self.cut.unwrap_or(self.body.len());
        if let Some((after, time)) = self.stall {
            stream.write_all(&self.body[..after])?;
            thread::sleep(time);
            return stream.write_all(&self.body[after..end]);
        }
        stream.write_all(&self.body[..end])?;
        if !self.endless {
            return Ok(());
        }
        loop {
            stream.write_all(&self.body)?;
        }
    }
}

/// A server on a free port of this machine, until the test ends.
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request as the function says; it also gets how many requests for the same
    /// target came before.
    pub(crate) fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (log, answer) = (seen.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, answer) = (log.clone(), answer.clone());
                thread::spawn(move || {
                    // A TLS handshake, for example, is no request.
                    let Some(request) = read(&stream) else { return };
                    let before = {
                        let mut log = log.lock().unwrap();
                        let before = log.iter().filter(|it| it.target == request.target).count();
                        log.push(request.clone());
                        before
                    };
                    let _ = answer(&request, before).send(&stream);
                });
            }
        });
        Self { address, seen }
    }

    /// A registry of one image, `app:1`, that does what the function says where it says something.
    pub(crate) fn registry(
        image: &Example,
        fault: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let image = image.clone();
        Self::start(move |request, before| fault(request, before).unwrap_or_else(|| serve(&image, request)))
    }

    /// `127.0.0.1:port`
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// The requests so far whose target contains a text.
    pub(crate) fn requests(&self, part: &str) -> Vec<Request> {
        self.seen.lock().unwrap().iter().filter(|request| request.target.contains(part)).cloned().collect()
    }
}

/// What a good registry answers.
pub(crate) fn serve(image: &Example, request: &Request) -> Reply {
    if request.target.ends_with("/manifests/1") {
        return Reply::blob(&image.manifest);
    }
    let found = image.blobs().find(|blob| request.target.ends_with(&blob.digest().to_string()));
    let Some(blob) = found else { return Reply::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#) };
    let offset = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match offset {
        None => Reply::blob(blob),
        Some(offset) => {
            let length = blob.bytes.len();
            let range = format!("bytes {offset}-{}/{length}", length - 1);
            Reply::new(206, &blob.bytes[offset..]).with("content-range", &range)
        }
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut reader = BufReader::new(stream);
    let mut first = [0];
    reader.read_exact(&mut first).ok()?;
    if !first[0].is_ascii_uppercase() {
        return None;
    }
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let line = format!("{}{}", char::from(first[0]), lines.first()?);
    let mut words = line.split(' ').map(str::to_owned);
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut request = Request { method: words.next()?, target: words.next()?, headers, body: String::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_string(&mut request.body).ok()?;
    Some(request)
}
