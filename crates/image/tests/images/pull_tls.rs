//! Trust and proxies, which are taken from the environment.

use std::fs;

use crate::child;
use crate::example::Example;
use crate::registry::{Registry, output};
use crate::server::{Server, serve};

#[test]
fn a_registry_with_tls_needs_an_authority_that_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (key, certificate) = (path("key.pem"), path("certificate.pem"));
    let arguments = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tests -addext subjectAltName=DNS:localhost \
                     -addext basicConstraints=critical,CA:FALSE -keyout";
    let mut arguments: Vec<&str> = arguments.split_whitespace().collect();
    arguments.extend([key.as_str(), "-out", certificate.as_str()]);
    output("openssl", &arguments, "openssl");
    let http = format!("  tls:\n    certificate: {certificate}\n    key: {key}\n");
    let registry = Registry::with("", &http);
    let example = Example::small();
    registry.push(&example, "app:1");

    let store = folder.path().join("store");
    let reference = format!("{}/app:1", registry.host());
    let mut trusting = child::command("pull", &store, &reference);
    trusting.env("SSL_CERT_FILE", &certificate).env_remove("SSL_CERT_DIR");
    let digest = child::run(trusting).unwrap();
    assert!(digest.contains(&example.manifest.digest().to_string()));

    let other = folder.path().join("other-store");
    let doubting = child::run(child::command("pull", &other, &reference)).unwrap_err();
    assert!(doubting.contains("cannot reach registry") && doubting.contains("certificate"), "{doubting}");
    assert!(doubting.contains("SSL_CERT_FILE"), "{doubting}");
    assert_eq!(fs::read_dir(other.join("images")).unwrap().count(), 0);
}

#[test]
fn a_proxy_is_used_for_other_machines_and_not_for_this_one() {
    let example = Example::small();
    let image = example.clone();
    let proxy = Server::start(move |request, _| serve(&image, request));
    let folder = tempfile::tempdir().unwrap();
    let pull = |job: &str, reference: &str, store: &str| {
        let mut command = child::command(job, &folder.path().join(store), reference);
        command
            .env("HTTP_PROXY", format!("http://{}", proxy.host()))
            .env_remove("NO_PROXY")
            .env_remove("no_proxy");
        child::run(command)
    };
    pull("pull-plain", "registry.invalid/app:1", "proxied").unwrap();
    let asked = proxy.requests("http://registry.invalid/v2/app/").len();
    assert!(asked >= 3, "{asked}");

    let direct = Server::registry(&example, |_, _| None);
    pull("pull", &format!("{}/app:1", direct.host()), "direct").unwrap();
    assert_eq!(proxy.requests("").len(), asked);
    assert!(!direct.requests("/v2/app/").is_empty());
}

#[test]
fn plain_http_is_spoken_to_another_machine_only_if_asked() {
    let example = Example::small();
    let image = example.clone();
    let proxy = Server::start(move |request, _| serve(&image, request));
    let folder = tempfile::tempdir().unwrap();
    let mut command = child::command("pull", &folder.path().join("store"), "registry.invalid/app:1");
    command.env("HTTP_PROXY", format!("http://{}", proxy.host()));
    let error = child::run(command).unwrap_err();
    assert!(error.contains("cannot reach registry registry.invalid"), "{error}");
    assert!(proxy.requests("").is_empty());
}
