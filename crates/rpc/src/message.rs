//! One line and what it means: requests and notifications as they come, responses and
//! notifications as they go.
//!
//! Lines with output are made by hand: there are thousands of them a second, and nothing but the
//! data changes from one to the next.

use std::borrow::Cow;

use api::Kind;
use api::rpc::{Code, Failure, Id, VERSION};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The longest identifier, bytes: it is repeated with every piece of output.
pub(crate) const MAX_ID: usize = 256;

/// A request or a notification.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Incoming<'a> {
    /// `None` for a notification.
    pub(crate) id: Option<Id>,
    pub(crate) method: Cow<'a, str>,
    /// A JSON object.
    pub(crate) params: &'a str,
}

/// A line that is neither, and whom to tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// `None` if it could not be read.
    pub(crate) id: Option<Id>,
    pub(crate) failure: Failure,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

/// Tells `null` from nothing.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

/// What a line means; `None` for one that asks for nothing.
pub(crate) fn parse(line: &[u8]) -> Result<Option<Incoming<'_>>, Refusal> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let refuse = |id, code, message: String| {
        Err(Refusal { id, failure: Failure::new(code, Kind::InvalidInput, message) })
    };
    let envelope: Envelope<'_> = match serde_json::from_slice(line) {
        Ok(envelope) if line[0] == b'{' => envelope,
        Err(error) if !error.is_data() => {
            return refuse(None, Code::PARSE, format!("the line is not JSON: {error}"));
        }
        _ if line[0] == b'[' => {
            return refuse(None, Code::INVALID_REQUEST, "batches are not supported".into());
        }
        Err(error) => return refuse(None, Code::INVALID_REQUEST, format!("not a request: {error}")),
        Ok(_) => return refuse(None, Code::INVALID_REQUEST, "not a request: no object".into()),
    };
    let id = match envelope.id.map(|id| identifier(id.get())) {
        Some(None) => {
            let message = format!("id must be a whole number or a string of at most {MAX_ID} bytes");
            return refuse(None, Code::INVALID_REQUEST, message);
        }
        Some(id) => id,
        None => None,
    };
    let version = envelope.jsonrpc.and_then(|version| string(version.get()));
    if version.as_deref() != Some(VERSION) {
        return refuse(id, Code::INVALID_REQUEST, format!("jsonrpc must be {VERSION:?}"));
    }
    let Some(method) = envelope.method else {
        return refuse(id, Code::INVALID_REQUEST, "no method".into());
    };
    let Some(method) = string(method.get()) else {
        return refuse(id, Code::INVALID_REQUEST, "method must be a string".into());
    };
    let params = match envelope.params.map_or("null", RawValue::get) {
        "null" => "{}",
        params if params.starts_with('{') => params,
        _ => return refuse(id, Code::INVALID_PARAMS, "params must be an object".into()),
    };
    Ok(Some(Incoming { id, method, params }))
}

fn identifier(json: &str) -> Option<Id> {
    let id: Id = serde_json::from_str(json).ok()?;
    (!matches!(&id, Id::Text(text) if text.len() > MAX_ID)).then_some(id)
}

fn string(json: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str(json).ok().map(|Text(text)| text)
}

/// The parameters of a method. Keys that it does not know are ignored: older and newer clients have
/// to work.
pub(crate) fn params<'a, T: Deserialize<'a>>(method: &str, json: &'a str) -> Result<T, Failure> {
    let mut json = serde_json::Deserializer::from_str(json);
    let unknown = |key: serde_ignored::Path<'_>| {
        tracing::warn!(method, key = %key, "ignored an unknown parameter");
    };
    serde_ignored::deserialize(&mut json, unknown)
        .map_err(|error| Failure::invalid_params(format!("{method}: {error}")))
}

/// The bytes behind a parameter's base64.
pub(crate) fn decode(method: &str, data: &str) -> Result<Vec<u8>, Failure> {
    BASE64.decode(data).map_err(|error| Failure::invalid_params(format!("{method}: data: {error}")))
}

/// The base64 of bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// A successful answer, as JSON.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data with text keys can be encoded")
}

/// The response to a request; `None` where its identifier could not be read.
pub(crate) fn response(id: Option<&Id>, answer: &Result<String, Failure>) -> Vec<u8> {
    let id = id.map_or_else(|| "null".to_owned(), to_json);
    let line = match answer {
        Ok(result) => format!("{{\"jsonrpc\":\"{VERSION}\",\"id\":{id},\"result\":{result}}}\n"),
        Err(failure) => {
            let error = to_json(failure);
            format!("{{\"jsonrpc\":\"{VERSION}\",\"id\":{id},\"error\":{error}}}\n")
        }
    };
    line.into_bytes()
}

/// A notification, or with `id` a request.
pub(crate) fn call(id: Option<&Id>, method: &str, params: &impl Serialize) -> Vec<u8> {
    let id = id.map_or_else(String::new, |id| format!("\"id\":{},", to_json(id)));
    let (method, params) = (to_json(&method), to_json(params));
    format!("{{\"jsonrpc\":\"{VERSION}\",{id}\"method\":{method},\"params\":{params}}}\n").into_bytes()
}

/// Makes lines with data of one method for one request.
#[derive(Debug)]
pub(crate) struct DataLines {
    prefix: Vec<u8>,
}

const DATA_SUFFIX: &[u8] = b"\"}}\n";

impl DataLines {
    /// For the command of the request `of`; notifications, or with `id` one request.
    pub(crate) fn new(id: Option<&Id>, method: &str, of: &Id) -> Self {
        let mut prefix = call(id, method, &serde_json::json!({ "id": of }));
        prefix.truncate(prefix.len() - b"}}\n".len());
        prefix.extend_from_slice(b",\"data\":\"");
        Self { prefix }
    }

    /// The line for these bytes.
    pub(crate) fn line(&self, bytes: &[u8]) -> Vec<u8> {
        let encoded = base64::encoded_len(bytes.len(), true).expect("lines are short");
        let mut line = Vec::with_capacity(self.prefix.len() + encoded + DATA_SUFFIX.len());
        line.extend_from_slice(&self.prefix);
        line.resize(self.prefix.len() + encoded, 0);
        let written = BASE64.encode_slice(bytes, &mut line[self.prefix.len()..]);
        debug_assert_eq!(written.ok(), Some(encoded), "the length was computed for it");
        line.extend_from_slice(DATA_SUFFIX);
        line
    }
}

#[cfg(test)]
mod tests;
