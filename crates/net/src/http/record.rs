//! What is told of one request when it is over. Its URL is taken as the guest sent it, before any secret
//! is put in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use api::event::NetworkEvent;
use http::header;
use http::request::Parts;
use policy::Denial;

use crate::report::{self, Reporter};

/// The longest URL in an event, bytes. Stops a guest from filling the log.
const MAX_URL: usize = 2048;

/// The event of one request, shared by all who see parts of it; reported when the last of them is gone.
#[derive(Clone)]
pub(super) struct Record(Arc<Inner>);

struct Inner {
    reporter: Reporter,
    started: Instant,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    event: Mutex<NetworkEvent>,
}

impl Record {
    /// For a request to `scheme`, on a connection to that host and port if the request does not say more.
    pub(super) fn new(reporter: Reporter, parts: &Parts, scheme: &str, host: String, port: u16) -> Self {
        let authority = match (parts.uri.authority(), parts.headers.get(header::HOST)) {
            (Some(authority), _) => authority.to_string(),
            (None, Some(host)) => String::from_utf8_lossy(host.as_bytes()).into_owned(),
            (None, None) => host.clone(),
        };
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        let event = NetworkEvent {
            method: parts.method.to_string(),
            url: cut(format!("{scheme}://{authority}{target}")),
            host,
            port,
            ..NetworkEvent::default()
        };
        Self::of(reporter, event)
    }

    /// For what could not be read as a request.
    pub(super) fn of(reporter: Reporter, event: NetworkEvent) -> Self {
        Self(Arc::new(Inner {
            reporter,
            started: Instant::now(),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            event: Mutex::new(event),
        }))
    }

    /// Whom it is for, once that is known.
    pub(super) fn host(&self, host: String, port: u16) {
        self.change(|event| (event.host, event.port) = (host, port));
    }

    /// Whom it is for, as far as that is known.
    pub(super) fn known_host(&self) -> String {
        self.0.event.lock().unwrap_or_else(PoisonError::into_inner).host.clone()
    }

    /// The status of the answer to the guest.
    pub(super) fn status(&self, status: http::StatusCode) {
        self.change(|event| event.status_code = status.as_u16());
    }

    /// It was refused.
    pub(super) fn denied(&self, denial: &Denial) {
        self.change(|event| {
            report::refused(event, denial);
            if !denial.host.is_empty() {
                (event.host, event.port) = (denial.host.clone(), denial.port);
            }
        });
    }

    /// It failed otherwise. The first failure is the cause of the others.
    pub(super) fn failed(&self, error: String) {
        self.change(|event| {
            event.error.get_or_insert(error);
        });
    }

    /// Bytes of the request's body, or of the guest's, went on.
    pub(super) fn sent(&self, bytes: usize) {
        self.0.request_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of the response's body, or of the upstream's, went to the guest.
    pub(super) fn received(&self, bytes: usize) {
        self.0.response_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn change(&self, change: impl FnOnce(&mut NetworkEvent)) {
        change(&mut self.0.event.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut event = std::mem::take(self.event.get_mut().unwrap_or_else(PoisonError::into_inner));
        event.request_bytes = *self.request_bytes.get_mut();
        event.response_bytes = *self.response_bytes.get_mut();
        event.duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.reporter.report(event);
    }
}

fn cut(mut url: String) -> String {
    if url.len() > MAX_URL {
        let end = (0..=MAX_URL).rev().find(|&end| url.is_char_boundary(end)).unwrap_or(0);
        url.truncate(end);
        url.push('…');
    }
    url
}
