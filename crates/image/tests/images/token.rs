//! A token server for the real registry: issues JSON Web Tokens (RFC 7519) that it verifies.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::registry::output;
use crate::server::{Reply, Request, Server};

pub(crate) const SERVICE: &str = "the registry";
pub(crate) const ISSUER: &str = "the tests";

/// A key with its self-signed certificate, which the registry trusts. Must outlive its server.
pub(crate) struct Issuer {
    folder: TempDir,
}

/// What it takes to issue tokens.
struct Files {
    key: PathBuf,
    certificate: PathBuf,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (key, certificate) = (path("key.pem"), path("certificate.pem"));
        let arguments = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tests -keyout";
        let mut arguments: Vec<&str> = arguments.split(' ').collect();
        arguments.extend([key.as_str(), "-out", certificate.as_str()]);
        output("openssl", &arguments, "openssl");
        Self { folder }
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// A server that gives anybody with the right password a token for what is asked for, and
    /// anybody without one a token that is good for nothing.
    pub(crate) fn serve(&self, authorization: String) -> Server {
        let files = Files { key: self.folder.path().join("key.pem"), certificate: self.certificate() };
        Server::start(move |request, _| {
            let known = request.header("authorization") == Some(&authorization);
            if request.header("authorization").is_some() && !known {
                return Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}"#);
            }
            let (repository, actions) = scope(request);
            let actions: Vec<&str> = if known { actions.split(',').collect() } else { Vec::new() };
            let token = files.token(&repository, &actions);
            Reply::new(200, json!({"token": token, "expires_in": 300}).to_string())
        })
    }
}

impl Files {
    /// A token that lets its bearer do `actions` with a repository.
    fn token(&self, repository: &str, actions: &[&str]) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let pem = fs::read_to_string(&self.certificate).unwrap();
        let x5c: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [x5c]});
        let claims = json!({
            "iss": ISSUER, "sub": "", "aud": SERVICE, "jti": now.to_string(),
            "exp": now + 300, "nbf": now - 10, "iat": now,
            "access": [{"type": "repository", "name": repository, "actions": actions}],
        });
        let part = |value: &Value| base64url(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let signature = sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", base64url(&signature))
    }
}

/// `repository:<name>:<actions>` of a request's query.
fn scope(request: &Request) -> (String, String) {
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let scope = query.split('&').find_map(|pair| pair.strip_prefix("scope=")).unwrap_or_default();
    let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
    let mut parts = scope.split(':').skip(1).map(str::to_owned);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

fn sign(key: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(bytes).unwrap();
    openssl.wait_with_output().unwrap().stdout
}

/// RFC 4648 section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digit = move |index: usize| char::from(ALPHABET[(bits >> (18 - 6 * index)) as usize & 63]);
        (0..=chunk.len()).map(digit)
    });
    digits.collect()
}
