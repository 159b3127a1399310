//! What the guest is told when there is no response of an upstream.

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use policy::{Denial, Reason};
use serde_json::json;

use super::body::{Answer, causes};
use super::pool::SendError;
use crate::connect::ConnectError;

/// The refusal of a request. What is no HTTP gets 400, what is not allowed 403.
pub(super) fn denied(denial: &Denial) -> Response<Answer> {
    let status = match denial.reason {
        Reason::MalformedRequest | Reason::MalformedHost => StatusCode::BAD_REQUEST,
        _ => StatusCode::FORBIDDEN,
    };
    of(status, denial.body())
}

/// An upstream that cannot be reached or broke off.
pub(super) fn failed(error: &SendError, host: &str) -> Response<Answer> {
    let status = match error {
        SendError::Connect(ConnectError::TimedOut) => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    bad_gateway(status, &causes(error), host)
}

/// An upstream whose answer cannot go on.
pub(super) fn bad_gateway(status: StatusCode, error: &str, host: &str) -> Response<Answer> {
    let mut body = json!({ "error": format!("{host}: {error}"), "host": host }).to_string().into_bytes();
    body.push(b'\n');
    of(status, body)
}

/// The whole answer to a head that is malformed, as bytes, after which the connection ends.
pub(super) fn malformed(denial: &Denial) -> Vec<u8> {
    let body = denial.body();
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

fn of(status: StatusCode, body: Vec<u8>) -> Response<Answer> {
    let mut response = Response::new(Answer::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
