//! What can go wrong with a registry. No error holds a URL: those may be signed.

use std::io;
use std::time::Duration;

use api::{Explain, Kind};
use reqwest::Response;
use serde::Deserialize;
use thiserror::Error;

use super::{CredentialError, bounded};
use crate::digest::Digest;
use crate::document::MAX_DOCUMENT;
use crate::store::disk_hint;

/// The most bytes of an error's body that are read.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// The most characters of a registry's own words that are repeated.
const MAX_MESSAGE: usize = 300;

/// Why a registry did not give what it was asked for.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The registry's name cannot be a host's.
    #[error("{registry:?} is not the name or address of a host")]
    NotAHost {
        /// The name.
        registry: String,
    },
    /// No connection came about.
    #[error("cannot reach registry {registry}")]
    Unreachable {
        /// Which.
        registry: String,
        /// Why not.
        source: reqwest::Error,
    },
    /// A connection broke.
    #[error("the connection to {registry} broke")]
    Broken {
        /// Which.
        registry: String,
        /// How.
        source: reqwest::Error,
    },
    /// A body ended before its time.
    #[error("registry {registry} sent only {received} of {expected} bytes")]
    Truncated {
        /// Which.
        registry: String,
        /// Bytes that came.
        received: u64,
        /// Bytes that there are.
        expected: u64,
    },
    /// Nothing came for too long.
    #[error("registry {registry} did not answer in time")]
    Silent {
        /// Which.
        registry: String,
    },
    /// The request was redirected to where it must not go.
    #[error("registry {registry} redirects badly")]
    Redirect {
        /// Which.
        registry: String,
        /// What is wrong.
        source: reqwest::Error,
    },
    /// The registry wants other credentials, or any.
    #[error("registry {registry} denies access to {repository}{}", in_words(message))]
    Denied {
        /// Which.
        registry: String,
        /// What was asked for.
        repository: String,
        /// Whether there were credentials for it.
        with_credentials: bool,
        /// What it said.
        message: String,
    },
    /// The registry asks for authorization in a way that is not known or not safe.
    #[error("registry {registry} asks for authorization in an unusable way: {reason}")]
    Challenge {
        /// Which.
        registry: String,
        /// Why not.
        reason: &'static str,
    },
    /// Credentials could not be looked up.
    #[error("the credentials for the registry cannot be read")]
    Credentials(#[from] CredentialError),
    /// There is no such thing.
    #[error("image {reference} not found in its registry ({what})")]
    NotFound {
        /// The image.
        reference: String,
        /// Which part of it.
        what: String,
    },
    /// Too many requests.
    #[error("registry {registry} limits how often it can be asked")]
    RateLimited {
        /// Which.
        registry: String,
        /// When it can be asked again.
        retry_after: Option<Duration>,
    },
    /// Any other failure.
    #[error("registry {registry} answers with status {status}{}", in_words(message))]
    Status {
        /// Which.
        registry: String,
        /// HTTP status.
        status: u16,
        /// When it can be asked again.
        retry_after: Option<Duration>,
        /// What it said.
        message: String,
    },
    /// More bytes than a document may have.
    #[error("the registry's {what} is larger than {} MiB", MAX_DOCUMENT >> 20)]
    TooLarge {
        /// What.
        what: String,
    },
    /// A layer that has, as the manifest says, more bytes than any may have.
    #[error("layer {digest} has {size} bytes, more than the {limit} that a layer may have")]
    LayerTooLarge {
        /// Which.
        digest: Digest,
        /// Length by the manifest.
        size: u64,
        /// The most that it may be.
        limit: u64,
    },
    /// Bytes of another digest than asked for.
    #[error("the {what} from the registry is not what was asked for: expected {expected}, got {actual}")]
    Digest {
        /// What.
        what: &'static str,
        /// Asked for.
        expected: Digest,
        /// Received.
        actual: Digest,
    },
    /// More bytes than the manifest said.
    #[error("blob {digest} from the registry is longer than the {size} bytes of its manifest")]
    Oversize {
        /// Which.
        digest: Digest,
        /// Length by the manifest.
        size: u64,
    },
    /// What was received cannot be written.
    #[error("cannot write the downloaded layer to disk")]
    Disk(#[source] io::Error),
}

impl RegistryError {
    /// What a failed request means. The URL is dropped.
    pub(super) fn from_transport(registry: &str, error: reqwest::Error) -> Self {
        let registry = registry.to_owned();
        let source = error.without_url();
        if source.is_redirect() {
            Self::Redirect { registry, source }
        } else if source.is_connect() || source.is_builder() {
            Self::Unreachable { registry, source }
        } else if source.is_timeout() {
            Self::Silent { registry }
        } else {
            Self::Broken { registry, source }
        }
    }

    /// Whether the same request may go well later.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Truncated { .. }
            | Self::Silent { .. }
            | Self::RateLimited { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// When the registry said it could be asked again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl Explain for RegistryError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Truncated { .. }
            | Self::Redirect { .. }
            | Self::Challenge { .. }
            | Self::RateLimited { .. }
            | Self::Status { .. } => Kind::Unavailable,
            Self::Silent { .. } => Kind::Timeout,
            Self::NotAHost { .. } => Kind::InvalidInput,
            Self::Denied { .. } | Self::Credentials(_) => Kind::Denied,
            Self::NotFound { .. } => Kind::NotFound,
            Self::TooLarge { .. } | Self::LayerTooLarge { .. } => Kind::LimitExceeded,
            Self::Digest { .. } | Self::Oversize { .. } => Kind::Corrupt,
            Self::Disk(error) => api::error::io_kind(error),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { registry, .. } => Some(format!(
                "check the name {registry}, the network, and HTTPS_PROXY if you need a proxy; a registry without \
                 TLS needs --plain-http, one with a private authority SSL_CERT_FILE"
            )),
            Self::Denied { registry, with_credentials: true, .. } => {
                Some(format!("check the name of the image, and log in again: docker login {registry}"))
            }
            Self::Denied { registry, .. } => {
                Some(format!("check the name of the image; if it is private: docker login {registry}"))
            }
            Self::Credentials(error) => error.hint(),
            Self::NotFound { .. } => Some("check the spelling of the image and its tag".into()),
            Self::RateLimited { retry_after: Some(delay), .. } => {
                Some(format!("try again in {} seconds, or log in for a higher limit", delay.as_secs()))
            }
            Self::RateLimited { .. } => Some("try again later, or log in for a higher limit".into()),
            Self::Broken { .. } | Self::Truncated { .. } | Self::Silent { .. } | Self::Status { .. } => {
                Some("try again later".into())
            }
            Self::Digest { .. } | Self::Oversize { .. } => Some(
                "the registry or something on the way to it altered the data: try again, and tell who runs it".into(),
            ),
            Self::LayerTooLarge { .. } => Some("split the layer into smaller ones".into()),
            Self::Disk(error) => disk_hint(error),
            Self::NotAHost { .. } | Self::Redirect { .. } | Self::Challenge { .. } | Self::TooLarge { .. } => None,
        }
    }
}

fn in_words(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

/// The registry's own words, from the body that the distribution specification gives errors.
pub(super) async fn message(response: Response) -> String {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        message: String,
    }
    let body = bounded(response, MAX_ERROR_BODY, "error").await.unwrap_or_default();
    let Ok(body) = serde_json::from_slice::<Body>(&body) else { return String::new() };
    let messages: Vec<String> = body.errors.into_iter().map(|entry| entry.message).collect();
    // It ends on a terminal.
    messages.join("; ").chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect()
}
