//! A client of the OCI distribution API, for pulling: manifests and blobs of one repository.
//!
//! Nothing it returns is unchecked: documents are bounded, blobs are of the digest and length asked
//! for. Credentials are looked up only when the registry asks, and go only to the registry and the
//! token server it names.

mod auth;
mod credentials;
mod download;
mod error;
mod retry;

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode, Url};
use tokio::sync::Mutex;

pub use credentials::{CredentialError, CredentialFiles};
pub use error::RegistryError;

use crate::digest::Digest;
use crate::document::{Descriptor, MAX_DOCUMENT};
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use retry::Retries;

/// How long a connection may take to come about, with its TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a registry may say nothing in the middle of an answer, unless asked otherwise.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 5;

/// Kinds of manifest that are understood, the most wanted first.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// How to talk to a registry.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Speak plain HTTP, without any protection, also to other machines. To this machine it is
    /// spoken anyway if the registry has no TLS.
    pub plain_http: bool,
    /// Where credentials are looked for.
    pub credentials: CredentialFiles,
    /// How long the registry may stay silent.
    pub idle_timeout: Duration,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self { plain_http: false, credentials: CredentialFiles::from_env(), idle_timeout: IDLE_TIMEOUT }
    }
}

/// One repository of a registry.
pub(crate) struct Client {
    http: reqwest::Client,
    /// `https://registry-1.docker.io/`
    base: Url,
    reference: Reference,
    options: RegistryOptions,
    /// What the registry wanted to see last; all requests share it.
    authorization: Mutex<Option<HeaderValue>>,
    progress: Arc<dyn Progress>,
}

impl Client {
    /// A client for the repository of a reference.
    pub(crate) async fn connect(
        reference: &Reference,
        options: &RegistryOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<Self, RegistryError> {
        let http = http_client(reference, options)?;
        let mut base = base_url("https", reference)?;
        if options.plain_http || (reference.is_loopback() && !has_tls(&http, &base).await) {
            base = base_url("http", reference)?;
        }
        Ok(Self {
            http,
            base,
            reference: reference.clone(),
            options: options.clone(),
            authorization: Mutex::new(None),
            progress,
        })
    }

    /// A manifest by tag or digest. Its own digest is what counts: the caller compares.
    pub(crate) async fn manifest(&self, version: &str) -> Result<Vec<u8>, RegistryError> {
        self.document(&format!("manifests/{version}"), MANIFEST_TYPES).await
    }

    /// A small blob, in memory.
    pub(crate) async fn small_blob(&self, blob: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        if blob.size > MAX_DOCUMENT {
            return Err(RegistryError::TooLarge { what: format!("blob {}", blob.digest) });
        }
        let bytes = self.document(&format!("blobs/{}", blob.digest), "*/*").await?;
        check_digest("blob", &blob.digest, &Digest::of(&bytes))?;
        Ok(bytes)
    }

    async fn document(&self, path: &str, accept: &str) -> Result<Vec<u8>, RegistryError> {
        let mut retries = Retries::first();
        loop {
            let read = async { bounded(self.get(path, accept, 0).await?, MAX_DOCUMENT, path).await };
            match read.await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => self.before_retry(&mut retries, error).await?,
            }
        }
    }

    /// Waits before the next try, or gives the error back if there is none.
    async fn before_retry(&self, retries: &mut Retries, error: RegistryError) -> Result<(), RegistryError> {
        let Some(delay) = retries.delay(&error) else { return Err(error) };
        tracing::debug!(?delay, %error, "the registry failed, trying again");
        self.progress.event(Event::Retrying { reason: error.to_string(), delay });
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// One request, with authorization as the registry asks for it.
    async fn get(&self, path: &str, accept: &str, offset: u64) -> Result<Response, RegistryError> {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{path}", self.reference.repository()));
        let mut authorization = self.authorization.lock().await.clone();
        let mut asked_again = false;
        loop {
            let mut request = self.http.get(url.clone()).header(ACCEPT, accept);
            if let Some(value) = &authorization {
                request = request.header(AUTHORIZATION, value.clone());
            }
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            let response = request.send().await.map_err(|error| self.unreachable(error))?;
            // Whoever it redirected to has no say about our credentials.
            let is_registry = response.url().origin() == self.base.origin();
            if response.status() == StatusCode::UNAUTHORIZED && is_registry && !asked_again {
                asked_again = true;
                authorization = Some(self.authorize(response.headers(), authorization).await?);
                continue;
            }
            return self.checked(response, path).await;
        }
    }

    async fn checked(&self, response: Response, path: &str) -> Result<Response, RegistryError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let registry = self.reference.registry().to_owned();
        let retry_after = retry::retry_after(response.headers());
        let message = error::message(response).await;
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let credential = self.credential().await?;
                let repository = self.reference.repository().to_owned();
                RegistryError::Denied {
                    registry,
                    repository,
                    with_credentials: credential.is_some(),
                    message,
                }
            }
            StatusCode::NOT_FOUND => {
                RegistryError::NotFound { reference: self.reference.familiar(), what: path.to_owned() }
            }
            StatusCode::TOO_MANY_REQUESTS => RegistryError::RateLimited { registry, retry_after },
            _ => RegistryError::Status { registry, status: status.as_u16(), retry_after, message },
        })
    }

    fn unreachable(&self, source: reqwest::Error) -> RegistryError {
        RegistryError::from_transport(self.reference.registry(), source)
    }
}

/// Fails unless bytes are what was asked for.
pub(crate) fn check_digest(
    what: &'static str,
    expected: &Digest,
    actual: &Digest,
) -> Result<(), RegistryError> {
    if expected == actual {
        Ok(())
    } else {
        Err(RegistryError::Digest { what, expected: *expected, actual: *actual })
    }
}

/// The whole body, if it is not larger than it may be.
async fn bounded(mut response: Response, limit: u64, what: &str) -> Result<Vec<u8>, RegistryError> {
    let too_large = || RegistryError::TooLarge { what: what.to_owned() };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let mut body = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| RegistryError::from_transport(&host, error))?
    {
        if body.len() as u64 + chunk.len() as u64 > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The API of Docker's registry is not at the name that images are known by.
fn base_url(scheme: &str, reference: &Reference) -> Result<Url, RegistryError> {
    let registry = reference.registry();
    let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    // The grammar of references allows `1.2.3.4.5` and `xn--0`, which are no hosts.
    Url::parse(&format!("{scheme}://{host}/"))
        .map_err(|_| RegistryError::NotAHost { registry: registry.to_owned() })
}

/// Whether a registry on this machine speaks TLS. If it speaks anything else, or nothing, the
/// request in plain HTTP will tell.
async fn has_tls(http: &reqwest::Client, base: &Url) -> bool {
    let mut url = base.clone();
    url.set_path("/v2/");
    match http.get(url).send().await {
        Ok(_) => true,
        // With an authority that is not trusted: the request itself will say so.
        Err(error) => causes(&error).any(|cause| cause.to_string().contains("certificate")),
    }
}

/// An error's sources, all the way down.
fn causes(error: &dyn Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}

fn http_client(reference: &Reference, options: &RegistryOptions) -> Result<reqwest::Client, RegistryError> {
    let plain_http = options.plain_http;
    let redirects = Policy::custom(move |attempt| {
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else if may_talk_to(attempt.url(), plain_http) {
            // `reqwest` drops the authorization when the host, port or scheme changes.
            attempt.follow()
        } else {
            attempt.error("the redirect leads to an unprotected address")
        }
    });
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("matchlock/", env!("CARGO_PKG_VERSION")))
        .redirect(redirects)
        // The address that redirected may be signed.
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(options.idle_timeout);
    if reference.is_loopback() {
        // As other clients do: a proxy is not on the way to this machine.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| RegistryError::from_transport(reference.registry(), error))
}

/// HTTPS to anybody; plain HTTP to this machine, or to all if the user said so.
fn may_talk_to(url: &Url, plain_http: bool) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    url.scheme() == "https" || (url.scheme() == "http" && (plain_http || loopback))
}
