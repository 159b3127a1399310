//! Roots as images have them, and as hostile images could have them; OpenSSL reads what comes of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, mkfifoat, open};

use super::*;

/// A certificate with this subject, made by OpenSSL.
pub(super) fn certificate(subject: &str) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    openssl.args(["-keyout", "/dev/null", "-utf8", "-subj", subject]);
    let output = openssl.output().expect("openssl is needed: apt install openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("matchlock-trust-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("root")).unwrap();
        Self(path)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join("root").join(path.trim_start_matches('/'))
    }

    fn file(&self, path: &str, contents: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), contents).unwrap();
    }

    fn link(&self, path: &str, target: impl AsRef<Path>) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        symlink(target, self.path(path)).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn trust(&self, certificate: &str) {
        let root = open(self.path(""), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        Trust { root: root.as_fd(), certificate, since_ms: 0 }.write();
    }

    /// Whether OpenSSL trusts the certificate for what it finds there.
    fn verifies(&self, option: &str, path: &str, certificate: &str) -> bool {
        let file = self.0.join("certificate.pem");
        fs::write(&file, certificate).unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-no-CAfile", "-no-CApath", "-no-CAstore", option]).arg(self.path(path));
        openssl.arg(file).output().unwrap().status.success()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn debians_programs_trust_ours_beside_what_they_trusted() {
    let root = Root::new("debian");
    let (theirs, ours) = (certificate("/CN=Theirs"), certificate("/CN=Matchlock sandbox CA"));
    root.file("etc/ssl/certs/ca-certificates.crt", &theirs);
    root.trust(&ours);
    for trusted in [&theirs, &ours] {
        assert!(root.verifies("-CAfile", "etc/ssl/certs/ca-certificates.crt", trusted));
    }
    assert!(root.verifies("-CApath", "etc/ssl/certs", &ours));
    assert_eq!(root.text("usr/local/share/ca-certificates/matchlock.crt"), ours);
    assert_eq!(root.text(CA_CERTIFICATE), ours);
    assert_eq!(fs::read_link(root.path(CA_BUNDLE)).unwrap(), Path::new("/etc/ssl/certs/ca-certificates.crt"));
    assert!(!root.path("etc/pki").exists(), "other systems' places are not made");
}

#[test]
fn fedoras_one_bundle_under_many_names_gets_it_once() {
    let root = Root::new("fedora");
    let (theirs, ours) = (certificate("/CN=Theirs"), certificate("/CN=Ours"));
    let bundle = "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem";
    root.file(bundle, &theirs);
    root.file("etc/pki/ca-trust/source/anchors/other.pem", "");
    root.link("etc/ssl/certs", "/etc/pki/tls/certs");
    root.link("etc/ssl/cert.pem", "/etc/pki/tls/cert.pem");
    root.link("etc/pki/tls/certs/ca-bundle.crt", format!("/{bundle}"));
    root.link("etc/pki/tls/cert.pem", format!("/{bundle}"));
    root.trust(&ours);
    assert_eq!(root.text(bundle).as_bytes(), pem::with(theirs.as_bytes(), &ours, None));
    assert_eq!(root.text("etc/pki/ca-trust/source/anchors/matchlock.pem"), ours);
    assert!(root.verifies("-CApath", "etc/pki/tls/certs", &ours));
    assert_eq!(fs::read_link(root.path(CA_BUNDLE)).unwrap(), Path::new("/etc/pki/tls/certs/ca-bundle.crt"));
}

#[test]
fn an_image_without_any_trust_gets_the_bundle_that_most_programs_read() {
    let root = Root::new("empty");
    let ours = certificate("/CN=Ours");
    root.trust(&ours);
    assert!(root.verifies("-CAfile", DEFAULT_BUNDLE, &ours));
    assert_eq!(fs::read_link(root.path(CA_BUNDLE)).unwrap(), Path::new(DEFAULT_BUNDLE));
    root.trust(&ours);
    assert_eq!(root.text(DEFAULT_BUNDLE).matches("BEGIN").count(), 1);
}

#[test]
fn a_sandbox_that_is_started_again_trusts_its_new_certificate_only() {
    let root = Root::new("again");
    let theirs = certificate("/CN=Theirs");
    let [first, second] = [1, 2].map(|_| certificate("/CN=Matchlock sandbox CA"));
    root.file("etc/ssl/certs/ca-certificates.crt", &theirs);
    root.file("etc/ssl/cert.pem", &theirs);
    root.file("etc/ssl/certs/java/cacerts", "");
    root.trust(&first);
    // As update-ca-certificates does, which knows of no marks.
    root.file("etc/ssl/certs/ca-certificates.crt", format!("{first}{theirs}"));
    root.trust(&second);
    for bundle in ["etc/ssl/certs/ca-certificates.crt", "etc/ssl/cert.pem"] {
        assert_eq!(root.text(bundle).as_bytes(), pem::with(theirs.as_bytes(), &second, None), "{bundle}");
    }
    assert!(root.verifies("-CApath", "etc/ssl/certs", &second));
    assert!(!root.verifies("-CApath", "etc/ssl/certs", &first));
    let store = fs::read(root.path("etc/ssl/certs/java/cacerts")).unwrap();
    let trusted = pem::certificates(format!("{theirs}{second}").as_bytes());
    assert_eq!(store, keystore::trusting(&trusted, 0));
}

#[test]
fn javas_key_stores_are_changed_where_they_are_and_not_made() {
    let root = Root::new("java");
    let ours = certificate("/CN=Ours");
    root.file("etc/ssl/certs/java/cacerts", "PKCS #12");
    root.link("usr/lib/jvm/java-17/lib/security/cacerts", "/etc/ssl/certs/java/cacerts");
    root.file("usr/lib/jvm/java-8/jre/lib/security/cacerts", "JKS");
    root.file("opt/jdk-21/lib/security/cacerts", "JKS");
    root.file("usr/lib/jvm/none/release", "");
    root.trust(&ours);
    let store = keystore::trusting(&pem::certificates(ours.as_bytes()), 0);
    for path in [
        "etc/ssl/certs/java/cacerts",
        "usr/lib/jvm/java-8/jre/lib/security/cacerts",
        "opt/jdk-21/lib/security/cacerts",
    ] {
        assert_eq!(fs::read(root.path(path)).unwrap(), store, "{path}");
    }
    assert!(root.path("usr/lib/jvm/java-17/lib/security/cacerts").is_symlink());
    assert!(!root.path("usr/lib/jvm/none/lib").exists());
    assert!(!root.path("etc/pki").exists());
}

#[test]
fn links_of_an_image_never_lead_to_files_outside_of_it() {
    let root = Root::new("links");
    let ours = certificate("/CN=Ours");
    let outside = root.0.join("outside");
    fs::create_dir_all(outside.join("certs")).unwrap();
    for name in ["bundle", "cacerts", "certs/ca-certificates.crt"] {
        fs::write(outside.join(name), "kept").unwrap();
    }
    root.link("etc/ssl/cert.pem", outside.join("bundle"));
    root.link("etc/ssl/ca-bundle.pem", "../../../outside/bundle");
    root.link("etc/ssl/certs", outside.join("certs"));
    root.link("etc/matchlock", "../../outside");
    root.link("usr/local/share/ca-certificates", &outside);
    root.link("etc/pki/java/cacerts", "/../outside/cacerts");
    root.link("usr/lib/jvm", &outside);
    root.trust(&ours);
    let names = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!((names(&outside), names(&outside.join("certs"))), (3, 1), "nothing is new");
    for name in ["bundle", "cacerts", "certs/ca-certificates.crt"] {
        assert_eq!(fs::read_to_string(outside.join(name)).unwrap(), "kept");
    }
}

#[test]
fn what_is_no_bundle_is_left_alone_and_the_rest_is_done() {
    let root = Root::new("odd");
    let (theirs, ours) = (certificate("/CN=Theirs"), certificate("/CN=Ours"));
    root.file("etc/pki/tls/certs/ca-bundle.crt", "");
    File::options()
        .write(true)
        .open(root.path("etc/pki/tls/certs/ca-bundle.crt"))
        .and_then(|file| file.set_len(MAX_FILE + 1))
        .unwrap();
    fs::create_dir_all(root.path("etc/ssl/certs/ca-certificates.crt")).unwrap();
    let ssl = open(root.path("etc/ssl"), OFlags::PATH, Mode::empty()).unwrap();
    mkfifoat(&ssl, "ca-bundle.pem", Mode::from_raw_mode(0o644)).unwrap();
    fs::create_dir_all(root.path("etc/matchlock/ca.pem")).unwrap();
    root.file("etc/ssl/cert.pem", &theirs);
    root.trust(&ours);
    assert!(root.verifies("-CAfile", "etc/ssl/cert.pem", &ours));
    assert_eq!(fs::read_link(root.path(CA_BUNDLE)).unwrap(), Path::new("/etc/ssl/cert.pem"));
    assert_eq!(fs::metadata(root.path("etc/pki/tls/certs/ca-bundle.crt")).unwrap().len(), MAX_FILE + 1);
    assert!(root.path("etc/matchlock/ca.pem").is_dir());
}

#[test]
fn certificates_of_others_with_the_same_hash_are_kept_up_to_a_number() {
    let root = Root::new("hash");
    let ours = certificate("/CN=Ours");
    let der = pem::certificates(ours.as_bytes()).remove(0);
    let hash = subject::hash(&der).unwrap();
    root.file(&format!("etc/ssl/certs/{hash}.0"), "theirs");
    root.trust(&ours);
    root.trust(&ours);
    assert_eq!(root.text(&format!("etc/ssl/certs/{hash}.0")), "theirs");
    assert_eq!(root.text(&format!("etc/ssl/certs/{hash}.1")), ours);
    assert!(!root.path(&format!("etc/ssl/certs/{hash}.2")).exists());
}
