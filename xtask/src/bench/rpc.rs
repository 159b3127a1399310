//! A client on the socket of a sandbox's owner: JSON-RPC as a program of any language would speak it,
//! a line each.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use harness::Matchlock;
use serde_json::{Value, json};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An open session.
pub(crate) struct Session {
    socket: BufReader<UnixStream>,
    last_id: u64,
}

impl Session {
    /// With the owner of the sandbox `id`.
    pub(crate) fn open(matchlock: &Matchlock, id: &str) -> Result<Self> {
        let socket = matchlock.home().join("sandboxes").join(id).join("rpc.sock");
        let socket = UnixStream::connect(&socket).with_context(|| format!("cannot connect to {id}"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket: BufReader::new(socket), last_id: 0 })
    }

    /// Calls a method; how long its answer took.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Result<Duration> {
        let start = Instant::now();
        let id = self.send(method, params)?;
        loop {
            let line = self.receive()?;
            if line["id"] == id {
                let took = start.elapsed();
                return if line["error"].is_null() { Ok(took) } else { bail!("{method}: {line}") };
            }
        }
    }

    /// Runs a command, which must succeed.
    pub(crate) fn exec(&mut self, argv: &[&str]) -> Result<Duration> {
        self.call("exec", &json!({ "argv": argv }))
    }

    /// Starts `cat`, whose input is [`Self::echo`]'s.
    pub(crate) fn start_cat(&mut self) -> Result<u64> {
        let id = self.send("exec_pipe", &json!({ "argv": ["cat"] }))?;
        while self.receive()?["method"] != "exec_pipe.ready" {}
        Ok(id)
    }

    /// One byte to `cat` and back.
    pub(crate) fn echo(&mut self, cat: u64) -> Result<Duration> {
        let start = Instant::now();
        self.send("exec_pipe.stdin", &json!({ "id": cat, "data": "eA==" }))?;
        while self.receive()?["method"] != "exec_pipe.stdout" {}
        Ok(start.elapsed())
    }

    fn send(&mut self, method: &str, params: &Value) -> Result<u64> {
        self.last_id += 1;
        let line = json!({ "jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params });
        self.socket.get_mut().write_all(format!("{line}\n").as_bytes())?;
        Ok(self.last_id)
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.socket.read_line(&mut line)? == 0 {
            bail!("the sandbox's owner closed the connection");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
