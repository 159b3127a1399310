//! The user's credentials for registries, as Docker and Podman keep them: in their files, or with
//! a helper program that a file names. We only read.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use api::{Explain, Kind};
use docker_credential::{CredentialRetrievalError as Failure, DockerCredential};
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::reference::Reference;

/// How long a helper program may take: it may be asking the user for a password.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);

/// What Docker and Podman call Docker Hub in their files.
const DOCKER_HUB_KEYS: [&str; 2] = ["https://index.docker.io/v1/", "docker.io"];

/// What helpers say when they know of nothing (docker-credential-helpers, `credentials/error.go`).
const HELPER_HAS_NONE: &str = "credentials not found";

/// Files with credentials, the first that knows a registry counts.
#[derive(Debug, Clone, Default)]
pub struct CredentialFiles(Vec<PathBuf>);

/// What proves to a registry who the user is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    Password { user: String, password: String },
    IdentityToken(String),
}

/// Never the secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

/// Why credentials cannot be read. Never holds one.
#[derive(Debug, Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what Docker or Podman write.
    #[error("{} has malformed credentials for {server}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// For which registry.
        server: String,
    },
    /// A helper program did not do its work.
    #[error("the credential helper that {} names for {server} failed", path.display())]
    Helper {
        /// The file that names it.
        path: PathBuf,
        /// For which registry.
        server: String,
    },
    /// A helper program did not end.
    #[error("the credential helper for {0} did not answer in time")]
    HelperTimeout(String),
}

impl Explain for CredentialError {
    fn kind(&self) -> Kind {
        match self {
            Self::HelperTimeout(_) => Kind::Timeout,
            _ => Kind::Denied,
        }
    }

    fn hint(&self) -> Option<String> {
        Some("log in again with docker login or podman login".into())
    }
}

impl CredentialFiles {
    /// Where Docker and Podman look: `$REGISTRY_AUTH_FILE`; Docker's `config.json` in
    /// `$DOCKER_CONFIG` or `~/.docker`; Podman's `auth.json` in `$XDG_RUNTIME_DIR/containers` and
    /// `~/.config/containers` (containers-auth.json(5)).
    #[must_use]
    pub fn from_env() -> Self {
        let folder = |name: &str| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let home = folder("HOME");
        let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
        let files = [
            folder("REGISTRY_AUTH_FILE"),
            folder("DOCKER_CONFIG").or_else(|| in_home(".docker")).map(|it| it.join("config.json")),
            folder("XDG_RUNTIME_DIR").map(|it| it.join("containers/auth.json")),
            in_home(".config/containers/auth.json"),
        ];
        Self(files.into_iter().flatten().collect())
    }

    /// These files, in this order.
    #[must_use]
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self(files)
    }

    /// The credential for a repository. A helper program may run, on a thread of its own: it is
    /// not waited for longer than it may take.
    pub(super) async fn find(&self, reference: &Reference) -> Result<Option<Credential>, CredentialError> {
        let (files, reference, server) = (self.0.clone(), reference.clone(), reference.registry().to_owned());
        let (tell, told) = oneshot::channel();
        thread::spawn(move || {
            let found = files.iter().find_map(|file| in_file(file, &reference).transpose()).transpose();
            // Nobody listens any more: it took too long, or the pull was cancelled.
            let _ = tell.send(found);
        });
        match tokio::time::timeout(HELPER_TIMEOUT, told).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Err(CredentialError::HelperTimeout(server)),
        }
    }
}

fn in_file(path: &Path, reference: &Reference) -> Result<Option<Credential>, CredentialError> {
    #[derive(Default, Deserialize)]
    struct Keys {
        #[serde(default)]
        auths: HashMap<String, IgnoredAny>,
    }
    let json = match fs::read(path) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CredentialError::Unreadable { path: path.to_owned(), source }),
    };
    let keys: Keys = serde_json::from_slice(&json).unwrap_or_default();
    // Podman may log in to a part of a registry only: the longest key that fits counts.
    let full = format!("{}/{}", reference.registry(), reference.repository());
    let parts = full.match_indices('/').map(|(end, _)| &full[..end]).skip(1).chain([full.as_str()]);
    let narrower = parts.filter(|part| keys.auths.contains_key(*part)).collect::<Vec<_>>().into_iter().rev();
    let servers: &[&str] =
        if reference.registry() == "docker.io" { &DOCKER_HUB_KEYS } else { &[reference.registry()] };
    for server in narrower.chain(servers.iter().copied()) {
        let found = docker_credential::get_credential_from_reader(json.as_slice(), server);
        if let Some(credential) = known(found, path, server)? {
            return Ok(Some(credential));
        }
    }
    Ok(None)
}

fn known(
    found: Result<DockerCredential, Failure>,
    path: &Path,
    server: &str,
) -> Result<Option<Credential>, CredentialError> {
    let (path, server) = (path.to_owned(), server.to_owned());
    match found {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(Some(Credential::Password { user, password }))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Credential::IdentityToken(token))),
        Err(Failure::NoCredentialConfigured) => Ok(None),
        Err(Failure::HelperFailure { stdout, stderr, .. })
            if stdout.contains(HELPER_HAS_NONE) || stderr.contains(HELPER_HAS_NONE) =>
        {
            Ok(None)
        }
        Err(
            Failure::HelperFailure { .. }
            | Failure::HelperCommunicationError
            | Failure::MalformedHelperResponse,
        ) => Err(CredentialError::Helper { path, server }),
        Err(_) => Err(CredentialError::Malformed { path, server }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Option<Credential> {
        Some(Credential::Password { user: user.into(), password: password.into() })
    }

    fn find(json: &str, reference: &str) -> Result<Option<Credential>, CredentialError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, json).unwrap();
        in_file(&path, &reference.parse().unwrap())
    }

    #[test]
    fn docker_and_podman_files_are_understood() {
        // base64 of `me:pa:ss` and `you:word`.
        let file = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "bWU6cGE6c3M="},
            "localhost:5000": {"auth": "bWU6cGE6c3M="},
            "localhost:5000/team": {"auth": "eW91OndvcmQ="},
            "https://quay.io/v1/": {"auth": "eW91OndvcmQ="},
            "token.example": {"identitytoken": "abc"}
        }}"#;
        assert_eq!(find(file, "debian").unwrap(), password("me", "pa:ss"));
        assert_eq!(find(file, "localhost:5000/a").unwrap(), password("me", "pa:ss"));
        assert_eq!(find(file, "localhost:5000/team/a").unwrap(), password("you", "word"));
        assert_eq!(find(file, "localhost:5000/teams/a").unwrap(), password("me", "pa:ss"));
        assert_eq!(find(file, "quay.io/a").unwrap(), password("you", "word"));
        assert_eq!(find(file, "ghcr.io/a").unwrap(), None);
        assert_eq!(find(file, "token.example/a").unwrap(), Some(Credential::IdentityToken("abc".into())));
        let podman = r#"{"auths": {"docker.io": {"auth": "eW91OndvcmQ="}}}"#;
        assert_eq!(find(podman, "debian").unwrap(), password("you", "word"));
    }

    #[test]
    fn damaged_files_are_named_and_nothing_of_them_is_shown() {
        for json in [
            "{",
            r#"{"auths": {"a.b": {"auth": "!!secret!!"}}}"#,
            r#"{"auths": {"a.b": {"auth": "c2VjcmV0"}}}"#,
        ] {
            let error = find(json, "a.b/c").unwrap_err();
            assert!(matches!(error, CredentialError::Malformed { .. }), "{json}");
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
        let credential = password("me", "pa:ss").unwrap();
        assert!(!format!("{credential:?}").contains("pa:ss"));
        assert!(in_file(Path::new("/nowhere/config.json"), &"a".parse().unwrap()).unwrap().is_none());
    }

    #[test]
    fn a_helper_that_is_not_there_is_told_apart_from_no_credential() {
        let missing = find(r#"{"credsStore": "matchlock-test-has-no-such-helper"}"#, "a.b/c");
        assert!(matches!(missing, Err(CredentialError::Helper { .. })));
        assert!(find("{}", "a.b/c").unwrap().is_none());
    }
}
