//! Registries that ask who it is.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::{Explain, Kind};
use image::pull::{PullError, PullOptions};
use image::registry::{CredentialFiles, RegistryError, RegistryOptions};
use serde_json::json;
use tempfile::TempDir;

use crate::child;
use crate::example::{Compression, Example, noise};
use crate::pull::{options, pull};
use crate::registry::Registry;
use crate::server::{Reply, Server};
use crate::token::{ISSUER, Issuer, SERVICE};

/// Base64 of texts, as credential files have them.
fn base64(text: &str) -> String {
    let mut encoder = std::process::Command::new("base64");
    encoder.arg("-w0").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut encoder = encoder.spawn().unwrap();
    std::io::Write::write_all(&mut encoder.stdin.take().unwrap(), text.as_bytes()).unwrap();
    String::from_utf8(encoder.wait_with_output().unwrap().stdout).unwrap()
}

/// Options with a Docker configuration, in a folder, that has `user:password` for a registry.
pub(crate) fn with_password(host: &str, user_and_password: &str, folder: &TempDir) -> RegistryOptions {
    let path = folder.path().join("config.json");
    let auth = json!({"auths": {host: {"auth": base64(user_and_password)}}});
    fs::write(&path, auth.to_string()).unwrap();
    RegistryOptions { credentials: CredentialFiles::new(vec![path]), ..RegistryOptions::default() }
}

async fn pull_as(host: &str, user_and_password: Option<&str>) -> Result<(), PullError> {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options();
    if let Some(it) = user_and_password {
        options.registry = with_password(host, it, &folder);
    }
    pull(&folder.path().join("store"), &format!("{host}/team/app:1"), &options).await.map(|_| ())
}

/// What both kinds of authorization have in common.
async fn check_access(host: &str) {
    pull_as(host, Some("me:pa:ss")).await.unwrap();
    let error = pull_as(host, None).await.unwrap_err();
    assert!(
        matches!(error, PullError::Registry(RegistryError::Denied { with_credentials: false, .. })),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("docker login"));
    let error = pull_as(host, Some("me:wrong-secret")).await.unwrap_err();
    assert!(
        matches!(error, PullError::Registry(RegistryError::Denied { with_credentials: true, .. })),
        "{error:?}"
    );
    assert_eq!(error.kind(), Kind::Denied);
    let told = format!("{error} {error:?} {:?}", error.hint());
    assert!(!told.contains("wrong-secret") && !told.contains(&base64("me:wrong-secret")), "{told}");
}

#[tokio::test]
async fn a_real_registry_with_passwords_lets_in_who_has_one() {
    let registry = Registry::with_password("me", "pa:ss");
    registry.push(&Example::small(), "team/app:1");
    check_access(&registry.host()).await;
}

#[tokio::test]
async fn a_real_registry_with_tokens_lets_in_who_gets_one() {
    let issuer = Issuer::new();
    let certificate = issuer.certificate();
    let server = issuer.serve(format!("Basic {}", base64("me:pa:ss")));
    let auth = format!(
        "auth:\n  token:\n    realm: http://{}/token\n    service: {SERVICE}\n    issuer: {ISSUER}\n    \
         rootcertbundle: {}\n",
        server.host(),
        certificate.display()
    );
    let registry = Registry::with(&auth, "");
    registry.push_with(&Example::small(), "team/app:1", &["--dest-creds", "me:pa:ss"]);
    check_access(&registry.host()).await;
    let asked = server.requests("/token");
    let ours: Vec<_> = asked.iter().filter(|it| it.target.contains("team%2Fapp%3Apull")).collect();
    assert!(
        ours.iter().any(|it| it.target.contains("scope=repository%3Ateam%2Fapp%3Apull&service=the+registry"))
    );
}

/// A registry that wants the token of this number.
fn with_token(example: &Example, realm: String, number: Arc<AtomicUsize>) -> Server {
    Server::registry(example, move |request, _| {
        let good = format!("Bearer token-{}", number.load(Ordering::SeqCst));
        let challenge = format!(r#"Bearer realm="{realm}",service="s",error="invalid_token""#);
        let refused = Reply::new(401, "").with("www-authenticate", &challenge);
        (request.header("authorization") != Some(&good)).then_some(refused)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_is_renewed_once_for_all_requests() {
    let tars: Vec<Vec<u8>> = (0..6).map(|index| noise(&format!("f{index}"), 1000)).collect();
    let example = Example::new(&tars, Compression::Gzip);
    let issued: Arc<AtomicUsize> = Arc::default();
    let (number, expire) = (issued.clone(), issued.clone());
    let tokens = Server::start(move |_, before| {
        // The first is good until the second is asked for.
        issued.store(before, Ordering::SeqCst);
        Reply::new(200, json!({"access_token": format!("token-{before}")}).to_string())
    });
    let server = with_token(&example, format!("http://{}/t", tokens.host()), number);
    let folder = tempfile::tempdir().unwrap();
    let store = image::store::Store::open(folder.path()).unwrap();
    let listener = move |event| {
        if matches!(event, image::progress::Event::Layers { .. }) {
            expire.store(1, Ordering::SeqCst);
        }
    };
    let reference = format!("{}/app:1", server.host()).parse().unwrap();
    let pulled = image::pull::pull(&store, &reference, &options(), Arc::new(listener)).await.unwrap();
    assert_eq!(pulled.image.layers.len(), 6);
    assert_eq!(tokens.requests("/t").len(), 2);
}

#[tokio::test]
async fn an_identity_token_is_traded_for_an_access_token() {
    let example = Example::small();
    let tokens = Server::start(|request, _| {
        let good = request.method == "POST"
            && request.body.contains("grant_type=refresh_token")
            && request.body.contains("refresh_token=a%2Fb")
            && request.body.contains("scope=repository%3Aapp%3Apull");
        let reply = json!({"access_token": "token-0"}).to_string();
        if good { Reply::new(200, reply) } else { Reply::new(400, "") }
    });
    let server = with_token(&example, format!("http://{}/t", tokens.host()), Arc::default());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.json");
    fs::write(&path, json!({"auths": {server.host(): {"identitytoken": "a/b"}}}).to_string()).unwrap();
    let registry =
        RegistryOptions { credentials: CredentialFiles::new(vec![path]), ..RegistryOptions::default() };
    let options = PullOptions { registry, ..options() };
    pull(&folder.path().join("store"), &format!("{}/app:1", server.host()), &options).await.unwrap();
}

#[tokio::test]
async fn credentials_go_to_no_unprotected_token_server() {
    let example = Example::small();
    for realm in ["http://192.0.2.1/token", "ftp://localhost/", "nonsense"] {
        let server = with_token(&example, realm.into(), Arc::default());
        let folder = tempfile::tempdir().unwrap();
        let options =
            PullOptions { registry: with_password(&server.host(), "me:secret", &folder), ..options() };
        let store = folder.path().join("store");
        let error = pull(&store, &format!("{}/app:1", server.host()), &options).await.unwrap_err();
        assert!(matches!(error, PullError::Registry(RegistryError::Challenge { .. })), "{realm}: {error:?}");
    }
}

#[test]
fn helper_programs_are_asked_and_their_failure_is_told() {
    let registry = Registry::with_password("me", "pa:ss");
    registry.push(&Example::small(), "team/app:1");
    let folder = tempfile::tempdir().unwrap();
    let helper = |name: &str, script: &str| {
        let path = folder.path().join(format!("docker-credential-{name}"));
        // Written by nobody that another test's child could inherit it from: it is executed.
        let written = std::process::Command::new("sh")
            .args(["-c", r#"printf '#!/bin/sh\nread server\n%s\n' "$2" >"$1" && chmod 755 "$1""#, "sh"])
            .args([path.as_os_str(), script.as_ref()])
            .status();
        assert!(written.unwrap().success());
    };
    helper(
        "good",
        r#"[ "$1" = get ] && echo '{"ServerURL": "'$server'", "Username": "me", "Secret": "pa:ss"}'"#,
    );
    helper("empty", "echo credentials not found in native keychain; exit 1");
    helper("broken", "echo very-secret; exit 1");
    let with = |name: &str, configuration: serde_json::Value| {
        let config = folder.path().join(name);
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("config.json"), configuration.to_string()).unwrap();
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let store = folder.path().join(format!("store-{name}"));
        let mut command = child::command("pull", &store, &format!("{}/team/app:1", registry.host()));
        command.env("PATH", path).env("DOCKER_CONFIG", config).env_remove("REGISTRY_AUTH_FILE");
        child::run(command)
    };
    with("store", json!({"credsStore": "good"})).unwrap();
    with("helper", json!({"credHelpers": {registry.host(): "good"}, "credsStore": "empty"})).unwrap();
    let error = with("empty", json!({"credsStore": "empty"})).unwrap_err();
    assert!(error.contains("denies access"), "{error}");
    let error = with("broken", json!({"credsStore": "broken"})).unwrap_err();
    assert!(error.contains("credential helper") && error.contains("failed"), "{error}");
    assert!(!error.contains("very-secret"), "{error}");
}
