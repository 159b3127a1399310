//! One request of a guest, from its head to the head of the answer: asks the policy and the client's
//! callbacks, sends what they left, and plans the body of the answer.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use policy::body::{MAX_WHOLE, Whole};
use policy::request::{Cleared, Context, Exchange, Sent, Verdict};
use policy::response::{BodyPlan, Coding, ResponsePlan, ResponseVerdict};
use policy::{Denial, Host, Permit, Policy, Reason};
use tokio::sync::watch;

use super::answer;
use super::body::{Answer, BoxError, Changed, Relay, Source, Upload, causes};
use super::decode::Decoded;
use super::guarded::Control;
use super::hook;
use super::pool::{Lease, Pool, SendError};
use super::record::Record;
use super::revoke::revoked;
use super::tunnel::Tunnel;
use crate::connect::ConnectError;
use crate::report::Reporter;

/// How much of a refused request's body is read and thrown away, bytes, so that its connection can be used
/// again and a client that sends first hears why. More of it ends the connection.
const MAX_DRAINED: usize = 1024 * 1024;

/// What all requests of one connection share.
pub(super) struct Shared {
    pub(super) policy: watch::Receiver<Policy>,
    pub(super) https: Option<Host>,
    pub(super) destination: SocketAddr,
    pub(super) reporter: Reporter,
    pub(super) callback_socket: Option<PathBuf>,
    pub(super) pool: Arc<Pool>,
    pub(super) control: Arc<Control>,
    /// What the connection becomes after an upgrade.
    pub(super) tunnel: Mutex<Option<BoxFuture<'static, ()>>>,
    /// The last upgrade that was asked for and not granted: hyper leaves the end of such a connection to
    /// whoever holds this.
    pub(super) refused: Mutex<Option<OnUpgrade>>,
}

/// Why there is no answer of an upstream.
enum Failure {
    Denied(Denial),
    Send(SendError),
    Body(String),
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

/// The request and its answer, as far as they are on their way.
struct Flight {
    permit: Permit,
    record: Record,
    /// It asked to become a WebSocket.
    upgrades: bool,
}

impl Shared {
    /// Answers a request.
    pub(super) async fn handle(self: Arc<Self>, mut request: Request<Incoming>) -> Response<Answer> {
        if request.headers().contains_key(header::UPGRADE) {
            let upgrade = hyper::upgrade::on(&mut request);
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
        }
        let (parts, body) = request.into_parts();
        let port = self.destination.port();
        let scheme = if self.https.is_some() { "https" } else { "http" };
        let host = match &self.https {
            Some(host) => host.to_string(),
            None => self.destination.ip().to_string(),
        };
        let record = Record::new(self.reporter.clone(), &parts, scheme, host, port);
        let waits = parts.headers.contains_key(header::EXPECT);
        let policy = self.policy.borrow().clone();
        let context = Context { https: self.https.clone(), port };
        let answered = match self.decide(Exchange::begin(&policy, parts, &context)).await {
            Ok(cleared) => self.forward(*cleared, body, &record).await,
            Err(denial) => {
                if !waits {
                    tokio::spawn(drain(body));
                }
                Err(Failure::Denied(denial))
            }
        };
        let response = answered.unwrap_or_else(|failure| self.explain(failure, &record));
        record.status(response.status());
        response
    }

    /// The answer to the guest where there is none of an upstream.
    fn explain(&self, failure: Failure, record: &Record) -> Response<Answer> {
        match failure {
            Failure::Denied(denial) => {
                record.denied(&denial);
                answer::denied(&denial)
            }
            Failure::Send(SendError::Connect(ConnectError::Denied(denial))) => {
                record.denied(&denial);
                answer::denied(&denial)
            }
            // Not the upstream's fault: the guest's body is malformed.
            Failure::Send(_) | Failure::Body(_) if self.control.violation().is_some() => {
                let denial = self.malformed();
                record.denied(&denial);
                answer::denied(&denial)
            }
            Failure::Send(error) => {
                record.failed(causes(&error));
                answer::failed(&error, &record.known_host())
            }
            Failure::Body(error) => {
                record.failed(error.clone());
                answer::bad_gateway(StatusCode::BAD_GATEWAY, &error, &record.known_host())
            }
        }
    }

    /// The refusal of what breaks the rules of HTTP.
    pub(super) fn malformed(&self) -> Denial {
        let port = self.destination.port();
        let reason = Reason::MalformedRequest;
        let denial = match &self.https {
            Some(host) => Denial::new(reason, host, port),
            None => Denial::new(reason, self.destination.ip(), port),
        };
        match self.control.violation() {
            Some(violation) => denial.by(violation.to_string()),
            None => denial,
        }
    }

    async fn decide(&self, mut verdict: Verdict) -> Result<Box<Cleared>, Denial> {
        loop {
            verdict = match verdict {
                Verdict::Forward(cleared) => return Ok(cleared),
                Verdict::Deny(denial) => return Err(denial),
                Verdict::Ask(question) => {
                    let socket = self.callback_socket.as_deref();
                    let reply = hook::ask(socket, question.request(), question.timeout()).await;
                    question.answer(reply)
                }
            };
        }
    }

    async fn decide_response(&self, mut verdict: ResponseVerdict) -> Result<Box<ResponsePlan>, Denial> {
        loop {
            verdict = match verdict {
                ResponseVerdict::Forward(plan) => return Ok(plan),
                ResponseVerdict::Deny(denial) => return Err(denial),
                ResponseVerdict::Ask(question) => {
                    let socket = self.callback_socket.as_deref();
                    let reply = hook::ask(socket, question.request(), question.timeout()).await;
                    question.answer(reply)
                }
            };
        }
    }

    async fn forward(
        &self,
        cleared: Cleared,
        body: Incoming,
        record: &Record,
    ) -> Result<Response<Answer>, Failure> {
        let permit = cleared.permit().clone();
        record.host(permit.host().to_string(), permit.port());
        let upgrades = cleared.is_upgrade();
        let (parts, sent) = cleared.into_parts();
        let watch = || revoked(self.policy.clone(), &permit);
        let upload = Upload::new(body, watch(), record.clone());
        let request = Request::from_parts(parts, upload);
        let received = async {
            let sent = self.pool.send(request, &permit, upgrades).await;
            sent.map_err(Failure::Send)
        };
        let (response, lease) = tokio::select! {
            biased;
            denial = watch() => return Err(Failure::Denied(denial)),
            received = received => received?,
        };
        let flight = Flight { permit: permit.clone(), record: record.clone(), upgrades };
        // Bodies that are read as a whole and callbacks take time, too.
        tokio::select! {
            biased;
            denial = watch() => Err(Failure::Denied(denial)),
            answer = self.answer(flight, sent, response, lease) => answer,
        }
    }

    async fn answer(
        &self,
        flight: Flight,
        sent: Sent,
        mut response: Response<Incoming>,
        lease: Lease,
    ) -> Result<Response<Answer>, Failure> {
        let upstream = hyper::upgrade::on(&mut response);
        let (parts, body) = response.into_parts();
        let is_upgraded = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let Flight { permit, record, upgrades } = flight;
        let plan = self.decide_response(sent.response(parts)).await?;
        let ResponsePlan { mut parts, body: body_plan, masker } = *plan;
        // The guest's connection has its own.
        parts.version = Version::HTTP_11;
        if masker.is_some() {
            // The words behind the status are kept in there, and nobody has looked at them.
            parts.extensions.clear();
        }
        if is_upgraded {
            let guest = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
            let guest = guest.filter(|_| upgrades);
            let guest = guest.ok_or_else(|| Failure::Body("it upgraded without being asked".to_owned()))?;
            let scanner = self.policy.borrow().secrets().leak_scanner(&permit);
            let revoked = revoked(self.policy.clone(), &permit);
            let tunnel = Tunnel { guest, upstream, permit, scanner, revoked, record, lease };
            return Ok(self.upgrade(parts, tunnel));
        }
        let relay = |source, lease| {
            let revoked = revoked(self.policy.clone(), &permit);
            Answer::Relay(Box::new(Relay {
                source,
                masker: masker.clone(),
                revoked,
                record: record.clone(),
                lease: Some(lease),
            }))
        };
        let answer = match body_plan {
            BodyPlan::Empty => {
                lease.give_back();
                Answer::whole(Vec::new())
            }
            // That there is none is part of the head, and clients of gRPC look at it.
            BodyPlan::Stream(..) if http_body::Body::is_end_stream(&body) => {
                lease.give_back();
                Answer::whole(Vec::new())
            }
            BodyPlan::AsIs => relay(Source::AsIs(body), lease),
            BodyPlan::Stream(codings, filter) => {
                let changed = Changed::new(Decoded::new(body, &codings), filter);
                relay(Source::Changed(changed), lease)
            }
            BodyPlan::Whole(codings, whole) => {
                let (body, mut trailers) = change(body, &codings, &whole, &permit).await?;
                lease.give_back();
                if let (Some(masker), Some(trailers)) = (&masker, &mut trailers) {
                    masker.headers(trailers);
                }
                record.received(body.len());
                Answer::Whole(Some(body.into()).filter(|body: &Bytes| !body.is_empty()), trailers)
            }
            BodyPlan::Set(body) => {
                record.received(body.len());
                Answer::whole(body)
            }
        };
        Ok(Response::from_parts(parts, answer))
    }

    /// Grants an upgrade, and makes the tunnel that the connection becomes.
    fn upgrade(&self, mut parts: http::response::Parts, tunnel: Tunnel) -> Response<Answer> {
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(tunnel.run()));
        self.control.release();
        Response::from_parts(parts, Answer::whole(Vec::new()))
    }
}

/// A whole body, changed, and its trailers.
async fn change(
    body: Incoming,
    codings: &[Coding],
    whole: &Whole,
    permit: &Permit,
) -> Result<(Vec<u8>, Option<http::HeaderMap>), Failure> {
    let too_large = || Denial::new(Reason::BodyTooLarge, permit.host(), permit.port());
    let mut decoded = Decoded::new(body, codings);
    let mut bytes = Vec::new();
    let mut trailers = None;
    while let Some(frame) = decoded.frame().await {
        let broke_off = |error: BoxError| Failure::Body(format!("the answer broke off: {}", causes(&*error)));
        match frame.map_err(broke_off)?.into_data() {
            Ok(data) if bytes.len() + data.len() > MAX_WHOLE => return Err(too_large().into()),
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let bytes = whole.change(bytes).map_err(|_| too_large())?;
    Ok((bytes, trailers))
}

/// Reads a body and throws it away.
async fn drain(mut body: Incoming) {
    use http_body_util::BodyExt as _;
    let mut left = MAX_DRAINED;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = rest;
    }
}
