//! What is told of a connection: one event, when it was refused or is over. Of the requests on it, `http` tells.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use api::event::NetworkEvent;
use policy::Denial;
use policy::host::{Authority, Host, HostName};

use crate::report::{self, Reporter};
use crate::tunnel::{End, Outcome};
use crate::upstream::DialError;

/// What is known of a connection.
pub(super) struct Record {
    reporter: Reporter,
    begin: Instant,
    /// `tcp`, or `tls` if it is.
    scheme: &'static str,
    host: Host,
    port: u16,
}

impl Record {
    pub(super) fn new(reporter: &Reporter, destination: SocketAddr, names: &[HostName]) -> Self {
        let host = match names {
            [name] => Host::from(name.clone()),
            _ => Host::from(destination.ip()),
        };
        let (reporter, port) = (reporter.clone(), destination.port());
        Self { reporter, begin: Instant::now(), scheme: "tcp", host, port }
    }

    /// It is TLS, to `host`.
    pub(super) fn is_tls(&mut self, host: &Host) {
        self.scheme = "tls";
        self.host = host.clone();
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// The policy refuses it.
    pub(super) fn denied(&self, denial: &Denial) {
        self.reporter.report(self.denial(denial));
    }

    /// It could not be made.
    pub(super) fn failed(&self, error: &dyn fmt::Display) {
        self.reporter.report(NetworkEvent { error: Some(error.to_string()), ..self.event() });
    }

    /// There is no connection to the host, by its own fault or by the policy.
    pub(super) fn failed_or_denied(&self, error: &DialError) {
        match error {
            DialError::Denied(denial) => self.denied(denial),
            error => self.failed(error),
        }
    }

    /// It ended before anything was said.
    pub(super) fn nothing(&self) {
        self.reporter.report(self.event());
    }

    /// It is over.
    pub(super) fn ended(&self, outcome: &Outcome) {
        let event = match &outcome.end {
            End::Closed | End::Left => self.event(),
            End::Broken(error) => NetworkEvent { error: Some(error.to_string()), ..self.event() },
            End::Denied(denial) => self.denial(denial),
        };
        let (request_bytes, response_bytes) = (outcome.sent, outcome.received);
        self.reporter.report(NetworkEvent { request_bytes, response_bytes, ..event });
    }

    fn denial(&self, denial: &Denial) -> NetworkEvent {
        let mut event = NetworkEvent { host: denial.host.clone(), ..self.event() };
        report::refused(&mut event, denial);
        event
    }

    fn event(&self) -> NetworkEvent {
        let authority = Authority { host: self.host.clone(), port: Some(self.port) };
        NetworkEvent {
            method: "CONNECT".to_owned(),
            url: format!("{}://{authority}", self.scheme),
            host: self.host.to_string(),
            port: self.port,
            duration_ms: self.begin.elapsed().as_millis().try_into().unwrap_or(u64::MAX),
            ..NetworkEvent::default()
        }
    }
}
