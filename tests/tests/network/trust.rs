//! The sandbox's authority is trusted wherever an image keeps its trust store, and its key is nowhere.

use harness::cache::{ALPINE_LAYOUT, CLIENTS, DEBIAN_PYTHON, FEDORA_LAYOUT};
use harness::{Sandbox, Site};

/// Certificates of the sandbox's authority have this in their name.
const BEGIN: &str = "BEGIN CERTIFICATE";

#[test]
fn trust_stores_of_other_distributions_are_added_to() {
    let matchlock = Site::shared().matchlock().with_images(&[ALPINE_LAYOUT, FEDORA_LAYOUT]);
    let stores: [(&str, &[&str]); 2] = [
        (ALPINE_LAYOUT, &["/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"]),
        (
            FEDORA_LAYOUT,
            &[
                "/etc/pki/tls/certs/ca-bundle.crt",
                "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
                "/etc/pki/tls/cert.pem",
            ],
        ),
    ];
    for (image, files) in stores {
        let sandbox = Sandbox::start(&matchlock, image, &["--allow-host", "www.good.test"]);
        for file in files {
            let count = sandbox.sh(&format!("grep -c '{BEGIN}' {file}")).success().stdout_text();
            assert_eq!(count.trim(), "2", "{image} {file}: the one that was there, and ours");
        }
        for environment in ["", "env -i PATH=$PATH "] {
            let output = sandbox.sh(&format!("{environment}gofetch https://www.good.test/hello")).success();
            assert_eq!(output.stdout_text(), "HTTP/2.0 200\nhello over HTTP/2.0\n", "{image} {environment}");
        }
    }
}

#[test]
fn debians_trust_store_and_the_variables_of_clients_are_set() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "www.good.test"]);
    let names =
        ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"];
    for name in names {
        let output = sandbox.sh(&format!("grep -c '{BEGIN}' \"${name}\"")).success().stdout_text();
        assert!(output.trim().parse::<u32>().is_ok_and(|count| count >= 1), "{name}: {output}");
    }
    let _ = sandbox.sh("env -i PATH=$PATH curl -fsS https://www.good.test/hello").success();
    let _ = sandbox.sh("env -i PATH=$PATH gofetch https://www.good.test/hello").success();
    let untrusting = sandbox.sh(
        "env -i PATH=$PATH curl -fsS --capath /nonexistent --cacert /usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt \
         https://www.good.test/hello",
    );
    assert_eq!(untrusting.code, Some(60), "it is looked into");
}

#[test]
fn the_authoritys_key_is_not_in_the_sandbox_and_differs_from_one_to_the_next() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let authority = || {
        let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--privileged", "--allow-host", "www.good.test"]);
        let found = sandbox.sh("grep -rlE 'BEGIN (EC |RSA )?PRIVATE KEY' /etc /usr/local/share /run /tmp /var/lib /root 2>/dev/null; true");
        assert_eq!(found.success().stdout_text(), "");
        let line = "openssl s_client -connect www.good.test:443 -servername www.good.test -showcerts </dev/null 2>/dev/null | openssl x509 -noout -issuer -dates -ext subjectAltName && sha256sum $SSL_CERT_FILE";
        sandbox.sh(line).success().stdout_text()
    };
    let (first, second) = (authority(), authority());
    assert!(first.contains("DNS:www.good.test"), "{first}");
    assert_ne!(first.lines().last(), second.lines().last());
}

#[test]
fn no_authority_where_nothing_is_looked_into() {
    let matchlock = Site::shared().matchlock();
    for flags in [&[][..], &["--no-network"]] {
        let line = "echo \"$SSL_CERT_FILE$NODE_EXTRA_CA_CERTS\"; ls -l --time-style=+%s /etc/ssl/certs/ca-certificates.crt | wc -l";
        let command = [&["run"], flags, &["--image", DEBIAN_PYTHON, "--", "sh", "-c", line]].concat();
        assert_eq!(matchlock.run(&command).success().stdout_text(), "\n1\n");
    }
}
