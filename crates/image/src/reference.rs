//! Image references, `[registry/]repository[:tag][@digest]`, by the grammar of Docker and of the
//! OCI distribution specification. Local tags of imported images use the same grammar, so one name
//! means one image wherever it came from. Parsing decides once; what is odd is refused.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use api::{Explain, Kind};

use crate::digest::{Digest, InvalidDigest};

/// The registry of a name without one.
const DEFAULT_REGISTRY: &str = "docker.io";

/// Another name of [`DEFAULT_REGISTRY`], kept by Docker for old configurations.
const LEGACY_DEFAULT_REGISTRY: &str = "index.docker.io";

/// The repository prefix of a name of one word in the default registry.
const OFFICIAL: &str = "library/";

/// The tag of a name with neither tag nor digest.
const DEFAULT_TAG: &str = "latest";

/// The longest registry and repository together, bytes (Docker's `RepositoryNameTotalLengthMax`).
const MAX_NAME: usize = 255;

/// The longest tag, bytes (OCI distribution specification, "Pulling manifests").
const MAX_TAG: usize = 128;

/// Where an image is found: registry, repository, and a tag, a digest or both. Always complete:
/// defaults are filled in by parsing, so equal references name the same image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    version: Version,
}

/// Which of a repository's images: the digest decides wherever there is one, as in Docker, which
/// forgets a tag beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Version {
    Tag(String),
    Digest(Digest),
}

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not an image reference: {reason}")]
pub struct InvalidReference {
    text: String,
    reason: Reason,
}

/// The rule that a text breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
enum Reason {
    #[error("it is empty")]
    Empty,
    #[error("registry {0:?} is not a host name or address with an optional port")]
    Registry(String),
    #[error("repository names are in lower case")]
    UpperCase,
    #[error("{0:?} is not a repository name: letters and digits, joined by one of . _ __ - within each part")]
    Repository(String),
    #[error("64 hex digits are an image ID, not a name")]
    ImageId,
    #[error("registry and repository are longer than {MAX_NAME} bytes")]
    TooLong,
    #[error("{0:?} is not a tag: letters, digits, _ . and -, not starting with . or -, at most {MAX_TAG}")]
    Tag(String),
    #[error("{0}")]
    Digest(InvalidDigest),
}

impl Explain for InvalidReference {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn hint(&self) -> Option<String> {
        Some(match self.reason {
            Reason::UpperCase => format!("try {}", self.text.to_lowercase()),
            _ => {
                "write it as [registry[:port]/]repository[:tag][@sha256:digest], for example debian:12".into()
            }
        })
    }
}

impl Reference {
    /// The registry as in the reference: a host with an optional port.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository, `library/debian`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest, if the reference pins one.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        match &self.version {
            Version::Digest(digest) => Some(*digest),
            Version::Tag(_) => None,
        }
    }

    /// What the registry's API is asked for: the digest if there is one, else the tag.
    #[must_use]
    pub fn version(&self) -> String {
        match &self.version {
            Version::Digest(digest) => digest.to_string(),
            Version::Tag(tag) => tag.clone(),
        }
    }

    /// The reference as users write it, without what goes without saying but with its tag:
    /// `debian:latest` for `docker.io/library/debian`.
    #[must_use]
    pub fn familiar(&self) -> String {
        let mut name = self.repository.as_str();
        if self.registry != DEFAULT_REGISTRY {
            return self.to_string();
        }
        if let Some(short) = name.strip_prefix(OFFICIAL)
            && !short.contains('/')
        {
            name = short;
        }
        let familiar = self.with_version(name);
        // A repository whose first part looks like a registry needs its own before it.
        if familiar.parse().as_ref() == Ok(self) { familiar } else { self.to_string() }
    }

    /// Whether the registry is this machine: `localhost` or a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.registry.rsplit_once(':').filter(|(_, port)| is_port(port));
        let host = host.map_or(self.registry.as_str(), |(host, _)| host);
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    fn with_version(&self, name: &str) -> String {
        match &self.version {
            Version::Tag(tag) => format!("{name}:{tag}"),
            Version::Digest(digest) => format!("{name}@{digest}"),
        }
    }
}

/// The complete reference, `docker.io/library/debian:12`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_version(&format!("{}/{}", self.registry, self.repository)))
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;

    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        parse(text)
            .map_err(|reason| InvalidReference { text: text.chars().take(2 * MAX_NAME).collect(), reason })
    }
}

fn parse(text: &str) -> Result<Reference, Reason> {
    if text.is_empty() {
        return Err(Reason::Empty);
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(Reason::Digest)?)),
        None => (text, None),
    };
    // A colon before a slash belongs to the registry's port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    let (registry, repository) = split_registry(name);
    check_registry(registry)?;
    check_repository(repository)?;
    if repository == name && is_image_id(name) {
        return Err(Reason::ImageId);
    }
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        return Err(Reason::Tag(tag.into()));
    }
    let registry = if registry == LEGACY_DEFAULT_REGISTRY { DEFAULT_REGISTRY } else { registry };
    let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
    let repository = if official { format!("{OFFICIAL}{repository}") } else { repository.to_owned() };
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err(Reason::TooLong);
    }
    let version = match digest {
        Some(digest) => Version::Digest(digest),
        None => Version::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()),
    };
    Ok(Reference { registry: registry.to_owned(), repository, version })
}

/// The first part is a registry if it could not be part of a repository: it has a dot, a port or an
/// upper-case letter, or is `localhost`. Docker's rule, which makes `a/b` a repository.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':', '['])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn check_registry(registry: &str) -> Result<(), Reason> {
    let refuse = || Reason::Registry(registry.into());
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(refuse)?;
            let colon = port.strip_prefix(':');
            if address.parse::<std::net::Ipv6Addr>().is_err() || (!port.is_empty() && colon.is_none()) {
                return Err(refuse());
            }
            ("v6", colon)
        }
        None => registry.split_once(':').map_or((registry, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.split('.').all(label) && port.is_none_or(is_port) { Ok(()) } else { Err(refuse()) }
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn check_repository(repository: &str) -> Result<(), Reason> {
    if repository.split('/').all(is_component) {
        Ok(())
    } else if repository.to_ascii_lowercase().split('/').all(is_component) {
        Err(Reason::UpperCase)
    } else {
        Err(Reason::Repository(repository.into()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    bytes.first().is_some_and(word)
        && bytes.last().is_some_and(word)
        && bytes.split(word).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_image_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
